"""Reads weights from a PyTorch file of the format before 1.6, without PyTorch and without running what it contains."""

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UsageError

MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}


class _Tensor:
    """A tensor whose values are still to be read: its storage's key and its place in it."""

    def __init__(self, storage: tuple[str, type], offset: int, shape: tuple, strides: tuple, *_: Any):
        self.key, self.dtype = storage
        self.offset, self.shape, self.strides = offset, shape, strides

    def values(self, storage: np.ndarray) -> np.ndarray:
        """A copy of the tensor's values out of its storage (n,)."""
        steps = [step * storage.itemsize for step in self.strides]
        last = self.offset + sum((side - 1) * step for side, step in zip(self.shape, self.strides, strict=True))
        if min((self.offset, *self.shape, *self.strides), default=0) < 0 or last >= len(storage):
            raise UsageError(f"a tensor of shape {self.shape} reaches outside its storage of {len(storage)} values.")
        return np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, steps).copy()


class _Unpickler(pickle.Unpickler):
    """Knows the four names a state dict consists of; any other name in the file is an error, not a call."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        allowed = {("collections", "OrderedDict"): OrderedDict, ("torch._utils", "_rebuild_tensor_v2"): _Tensor}
        if (module, name) not in allowed:
            raise UsageError(f"weight file refers to {module}.{name}, which is not part of a plain state dict.")
        return allowed[module, name]

    def persistent_load(self, pid: tuple) -> tuple[str, type]:
        _, dtype, key, _, _, view = pid
        if view is not None:
            raise UsageError(f"weight file stores {key} as a view of another storage; plain tensors are needed.")
        return key, dtype


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name; raises UsageError for a missing, foreign, unsafe or truncated file.

    The file is five pickles (magic, protocol, system, tensors, storage keys), then for every key its length (int64)
    and its values, little-endian.
    """
    if not path.is_file():
        raise UsageError(f"there is no weight file {path}.")
    stream = io.BytesIO(path.read_bytes())
    try:
        magic, _, _, tensors, keys = (_Unpickler(stream).load() for _ in range(5))
        if magic != MAGIC:
            raise pickle.UnpicklingError(f"magic number {magic!r}")
        dtypes = {tensor.key: tensor.dtype for tensor in tensors.values()}
        storages = {}
        for key in keys:
            length = int(np.frombuffer(stream.read(8), "<i8")[0])
            dtype = np.dtype(dtypes[key])
            storages[key] = np.frombuffer(stream.read(length * dtype.itemsize), dtype, length)
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no intact PyTorch weight file (format before 1.6): {error}.") from error
    return {name: tensor.values(storages[tensor.key]) for name, tensor in tensors.items()}
