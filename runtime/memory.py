"""How much memory MLX and the process hold."""

import resource
import subprocess
import sys
from os import getpid
from pathlib import Path

import mlx.core as mx


def memory_usage() -> dict[str, int]:
    """Bytes: MLX's active arrays, their peak, the freed memory that it caches, and the process' resident memory.

    Arrays that nothing has evaluated are in none of them. On a GPU of its own memory the first three are there, and
    `rss` is the host's.
    """
    active, peak, cache = mx.get_active_memory(), mx.get_peak_memory(), mx.get_cache_memory()
    return {"active": active, "peak": peak, "cache": cache, "rss": rss()}


def rss() -> int:
    """The process' resident memory in bytes; where the system doesn't tell, the highest so far."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(getpid())], capture_output=True, text=True).stdout.strip()
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return int(told) * 1024 if told.isdigit() else highest
