"""Ctrl-C and SIGTERM ask the loop to save and stop; a second one stops at once."""

import signal
from contextlib import contextmanager
from typing import Any


@contextmanager
def caught(estimator: Any):
    """Within: the first SIGINT or SIGTERM sets `estimator.interrupted`, the next raises KeyboardInterrupt.

    estimator: that, or whatever else has `interrupted`, 0 at first.
    """

    def note(number: int, frame) -> None:
        if estimator.interrupted:
            raise KeyboardInterrupt
        estimator.interrupted = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
