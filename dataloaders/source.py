"""Where samples come from: the Source base, sources held in arrays, and transport between two sources."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.errors import UsageError
from runtime.op import NumpyBatch


def digest(*parts: Any) -> str:
    """A 12-digit hexadecimal hash of bytes objects and of the text of everything else."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part if isinstance(part, bytes) else repr(part).encode())
        total.update(b"\0")
    return total.hexdigest()[:12]


class Source:
    """A collection of samples addressed by row number, or a generator of fresh ones with a nominal length.

    shape: of one sample. classes: how many labels there are, 0 when unlabelled.
    """

    shape: tuple[int, ...] = ()
    classes: int = 0

    def __len__(self) -> int:
        raise NotImplementedError

    def take(self, indices: np.ndarray, rng: np.random.Generator) -> NumpyBatch:
        """The rows `indices` (n,) int64: "x" (n, *shape) float32, optionally "label" (n,) int32 and "x0" like "x"."""
        raise NotImplementedError

    def noise(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` points of the source distribution at t=0, (count, *shape) float32: standard normal by default."""
        return rng.standard_normal((count, *self.shape), dtype=np.float32)

    def fingerprint(self) -> str:
        """A short hash of the content or of the generator's parameters."""
        raise NotImplementedError


class Generated(Source):
    """Draws every batch anew: row numbers only say how many; `size` is the nominal length that makes an epoch."""

    def __init__(self, size: int = 100_000):
        if size < 1:
            raise UsageError(f"size must be at least 1, got {size}.")
        self.size = size

    def __len__(self) -> int:
        return self.size

    def draw(self, count: int, rng: np.random.Generator) -> NumpyBatch:
        """`count` fresh samples as a batch; "x" may be float64 here."""
        raise NotImplementedError

    def take(self, indices: np.ndarray, rng: np.random.Generator) -> NumpyBatch:
        """As many fresh samples as there are indices; UsageError where `draw` gives another number."""
        batch = self.draw(len(indices), rng)
        if any(len(value) != len(indices) for value in batch.values()):
            lengths = {key: len(value) for key, value in batch.items()}
            raise UsageError(f"{type(self).__name__}.draw was asked for {len(indices)} samples, got {lengths}.")
        return {key: value.astype(np.int32 if key == "label" else np.float32) for key, value in batch.items()}

    def fingerprint(self) -> str:
        """A hash of the class name and its public attributes, which are its parameters."""
        parameters = sorted((name, value) for name, value in vars(self).items() if not name.startswith("_"))
        return digest(type(self).__name__, parameters)


class ArraySource(Source):
    """Rows of arrays with a common first axis, by key: "x" and optionally "label" (integers from 0) and others.

    classes: number of labels; by default the largest label + 1.
    """

    FINGERPRINT_ROWS = 4096

    def __init__(self, arrays: Mapping[str, np.ndarray], classes: int | None = None):
        lengths = {key: len(value) for key, value in arrays.items()}
        if "x" not in arrays or min(lengths.values()) == 0 or len(set(lengths.values())) != 1:
            raise UsageError(f'arrays must have "x" and one common, non-zero length, got lengths {lengths}.')
        self.arrays = {key: np.asarray(value, dtype=self.dtype(key, value)) for key, value in arrays.items()}
        for key, value in self.arrays.items():
            check_finite(key, value)
        self.shape = tuple(self.arrays["x"].shape[1:])
        self.classes = classes or 0
        if "label" in arrays:
            if (self.arrays["label"] != np.asarray(arrays["label"])).any():
                raise UsageError("labels must be whole numbers, got fractions.")
            low, high = int(self.arrays["label"].min()), int(self.arrays["label"].max())
            self.classes = high + 1 if classes is None else classes
            if low < 0 or high >= self.classes:
                raise UsageError(f"labels must lie in 0..{self.classes - 1}, got {low}..{high}.")

    @staticmethod
    def dtype(key: str, value: np.ndarray) -> type | np.dtype:
        """How an array is held: labels int32, "x" and "x0" float32 (subclasses may keep "x" otherwise)."""
        return {"label": np.int32, "x": np.float32, "x0": np.float32}.get(key, value.dtype)

    def __len__(self) -> int:
        return len(self.arrays["x"])

    def take(self, indices: np.ndarray, rng: np.random.Generator) -> NumpyBatch:
        """The rows themselves, gathered into contiguous arrays."""
        return {key: value.take(indices, axis=0) for key, value in self.arrays.items()}

    def fingerprint(self) -> str:
        """A hash of keys, shapes, types and at most 4096 evenly spaced rows (memory maps may exceed the memory)."""
        rows = np.unique(np.linspace(0, len(self) - 1, self.FINGERPRINT_ROWS).astype(np.int64))
        parts = [(key, value.shape, str(value.dtype)) for key, value in self.arrays.items()]
        return digest(parts, *(value[rows].tobytes() for value in self.arrays.values()))


def check_finite(key: str, value: np.ndarray) -> None:
    """Raises UsageError for NaN or infinite values in (N, ...); integers have none."""
    if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
        rows = np.flatnonzero(~np.isfinite(value).reshape(len(value), -1).all(axis=1))
        raise UsageError(f"{key!r} must be finite, got NaN or infinite values in {len(rows)} of {len(value)} rows, "
                         f"the first {rows[0]}.")  # fmt: skip


class ImageSource(ArraySource):
    """Images (N, H, W, C) stored as uint8 in 0..peak, given as float32 in [-1, 1]; `label` (N,) is optional."""

    def __init__(
        self, images: np.ndarray, label: np.ndarray | None = None, classes: int | None = None, peak: int = 255
    ):
        if images.ndim != 4 or images.dtype != np.uint8:
            raise UsageError(f"images must be (N, H, W, C) uint8, got {images.shape} {images.dtype}.")
        super().__init__({"x": images} if label is None else {"x": images, "label": label}, classes)
        self.half = np.float32(peak / 2)

    @staticmethod
    def dtype(key: str, value: np.ndarray) -> type | np.dtype:
        """Images stay uint8, labels are int32."""
        return np.int32 if key == "label" else value.dtype

    def take(self, indices: np.ndarray, rng: np.random.Generator) -> NumpyBatch:
        """The rows, with 0 sent to -1 and `peak` to 1, exactly."""
        batch = super().take(indices, rng)
        x = batch["x"] / self.half
        x -= 1
        return {**batch, "x": x}


class Transport(Source):
    """Unpaired transport: "x" from `target`, "x0" and the noise independently from `start`, both of one shape."""

    def __init__(self, start: Source, target: Source):
        if start.shape != target.shape:
            raise UsageError(f"start and target must have one shape, got {start.shape} and {target.shape}.")
        self.start, self.target = start, target
        self.shape, self.classes = target.shape, target.classes

    def __len__(self) -> int:
        return len(self.target)

    def take(self, indices: np.ndarray, rng: np.random.Generator) -> NumpyBatch:
        """Target rows with an independent start point each."""
        return {**self.target.take(indices, rng), "x0": self.noise(len(indices), rng)}

    def noise(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` points of `start`, rows drawn with replacement, (count, *shape) float32."""
        return self.start.take(rng.integers(len(self.start), size=count), rng)["x"]

    def fingerprint(self) -> str:
        """A hash of both sources."""
        return digest(self.start.fingerprint(), self.target.fingerprint())
