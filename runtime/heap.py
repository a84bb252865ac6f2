"""Keeps freed memory in the process on Linux CPUs; runtime.blas imports this before mlx.core.

MLX's CPU backend keeps no memory of its own: every array is a malloc. glibc maps blocks above 32 MB anew each time and
gives the others' room back at the top of the heap, and each fresh page of 4 kB costs a fault that takes longer than
computing its 1,024 numbers. Told not to map and not to trim (mallopt(3)), it hands out pages that it has already. The
process then keeps what it has needed at most. MLX_LAB_HEAP=off leaves glibc as it is.
"""

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path

# mallopt(3): the parameters' numbers in malloc.h and their values
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = (-1, 2**31 - 1), (-4, 0), (-8, 1)


def cpu_wheel() -> bool:
    """Whether MLX here is the wheel that computes on Linux CPUs."""
    return find_spec("mlx_cpu") is not None or any((Path(folder) / "mlx_cpu.libs").is_dir() for folder in sys.path)


def keep() -> str:
    """Sets glibc's parameters; says what happened."""
    if not sys.platform.startswith("linux") or not cpu_wheel():
        return "not needed"
    if "off" in (os.environ.get(name, "").lower() for name in ("MLX_LAB_HEAP", "MLX_LAB_BLAS")):
        return "off"
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # one arena, since those of threads may not grow beyond 64 MB
    if mallopt is None or not all(mallopt(*pair) for pair in (TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX)):
        return "this C library has no such parameters: each large array costs page faults"
    return "freed memory is kept"


status = keep()
