"""Host arrays for a CUDA GPU, in buffers that no kernel's result gets.

MLX keeps freed buffers by their size, whoever had them. A host array that is given one of the GPU's is moved: MLX
copies what was in it to memory that both see, behind everything that was launched, so the host waits for the GPU it
should keep busy; and a kernel that gets one of the host's works on pages that wander between the two. Batches have the
sizes of a step's own arrays (noise, targets, times), so both happen. A buffer is taken for sizes up to 2 pages less
than its own: with 3 pages more a host array gets none but its like's.
"""

from collections.abc import Mapping
from functools import lru_cache

import mlx.core as mx
import numpy as np

SPARE = 3 * 16384  # bytes; a page of MLX's allocator has 16 KB
SMALL = 8  # bytes: numbers have a place of their own


def uploaded(value: np.ndarray) -> mx.array:
    """A host array of any shape as an MLX array, of the type that mx.array gives it."""
    if value.nbytes <= SMALL or not mx.cuda.is_available() or mx.default_device() == mx.Device(mx.cpu):
        return mx.array(value)
    whole = room(value.size + SPARE // value.itemsize, value.dtype)
    whole[: value.size] = value.reshape(-1)
    return mx.array(whole)[: value.size].reshape(value.shape)


@lru_cache(16)
def room(size: int, dtype: np.dtype) -> np.ndarray:
    """Memory (size,) to copy from, the same for every batch; new memory costs as much as the copy."""
    return np.zeros(size, dtype)


def to_device(batch: Mapping[str, np.ndarray]) -> dict[str, mx.array]:
    """The arrays of a batch as MLX arrays; strings stay behind."""
    return {name: uploaded(value) for name, value in batch.items() if not np.issubdtype(value.dtype, np.str_)}
