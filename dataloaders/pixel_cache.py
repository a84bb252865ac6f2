"""Decodes images once, in threads, into a memory-mapped file of pixels."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

CHUNK = 256  # images a thread decodes at a time


def decode(paths: list[Path], file: Path, shape: tuple[int, ...], read: Callable[[Path], np.ndarray]) -> None:
    """Decodes `paths` by `read` into an .npy file (N, *shape) uint8, complete or not there at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.stem}.{os.getpid()}.tmp")

    def fill(start: int) -> None:
        for row in range(start, min(start + CHUNK, len(paths))):
            pixels[row] = read(paths[row])

    try:
        pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(paths), *shape))
        with ThreadPoolExecutor() as pool:  # PIL decodes outside the interpreter lock
            for _ in pool.map(fill, range(0, len(paths), CHUNK)):
                pass
        pixels.flush()
        partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)
