"""Arrays of a safetensors file as memory maps: nothing is read before it is used."""

import json
import math
from pathlib import Path

import numpy as np

from runtime.errors import UsageError

DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "u1"}


class Mapped:
    """One array of a file; rows come as float32 or int32. bfloat16 is the upper half of a float32."""

    def __init__(self, path: Path, offset: int, dtype: str, shape: tuple[int, ...]):
        self.shape, self.dtype = shape, dtype
        self.array = np.memmap(path, DTYPES[dtype], "r", offset, shape)

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """The rows of these numbers, in memory."""
        found = np.asarray(self.array[indices])
        if self.dtype == "BF16":
            return (found.astype(np.uint32) << 16).view(np.float32)
        return found.astype(np.int32 if self.dtype[0] in "IU" else np.float32)


def mapped(path: Path) -> dict[str, Mapped]:
    """The arrays of a file by name; UsageError where it is damaged, cut short or of a type not in DTYPES.

    Format: 8 bytes length of the header (little-endian), a JSON header {name: {dtype, shape, data_offsets}}, data.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise UsageError(f"{path} is cut short or no safetensors file: it has {size} bytes, "
                             f"its header alone needs {8 + length}.")  # fmt: skip
        try:
            header = json.loads(file.read(length))
            entries = {name: (e["dtype"], tuple(e["shape"])) for name, e in header.items() if name != "__metadata__"}
            places = {name: (int(start), int(end)) for name in entries for start, end in [header[name]["data_offsets"]]}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} is no safetensors file ({error}); make it anew.") from error
    begin = 8 + length
    needed = begin + max((end for _, end in places.values()), default=0)
    if size != needed:
        raise UsageError(f"{path} is cut short or damaged: it has {size} bytes, its header needs {needed}.")
    for name, (dtype, shape) in entries.items():
        if dtype not in DTYPES:
            raise UsageError(f"{path}: {name!r} is of type {dtype}; needed one of {', '.join(DTYPES)}.")
        has = places[name][1] - places[name][0]
        if math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize != has or 0 in shape or not shape:
            raise UsageError(f"{path}: {name!r} has {has} bytes for shape {shape} of {dtype}; make it anew.")
    return {name: Mapped(path, begin + places[name][0], *entry) for name, entry in entries.items()}
