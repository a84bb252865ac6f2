"""NumPy's small matrix products in one thread, for answers in milliseconds on a machine that does other things too."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np


@cache
def openblas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """What gets and sets how many threads the OpenBLAS in NumPy's wheel takes; None where NumPy has another BLAS."""
    for library in (Path(np.__file__).parents[1] / "numpy.libs").glob("libscipy_openblas*"):
        loaded = ctypes.CDLL(str(library))
        for ending in ("64_", ""):
            if hasattr(loaded, f"scipy_openblas_set_num_threads{ending}"):
                get, put = (getattr(loaded, f"scipy_openblas_{verb}_num_threads{ending}") for verb in ("get", "set"))
                return get, put
    return None


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it NumPy's OpenBLAS takes one thread; a decorator, too.

    Its threads spin while they wait for each other: on two cores beside one busy process a prediction from an impedance
    spectrum took 141 ms instead of 36 (2 threads and 1).
    """
    found = openblas()
    if found is None:
        yield
        return
    count, take = found
    before = count()
    take(1)
    try:
        yield
    finally:
        take(before)
