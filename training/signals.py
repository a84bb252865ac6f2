"""Ctrl-C and SIGTERM ask the loop to save and stop; a second one stops at once."""

import signal
from contextlib import contextmanager

from training.estimator import Estimator


@contextmanager
def caught(estimator: Estimator):
    """Within: the first SIGINT or SIGTERM sets `estimator.interrupted`, the next raises KeyboardInterrupt."""

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
