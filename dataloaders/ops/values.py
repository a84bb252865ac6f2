"""Values and shapes of arrays on the host."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dataloaders.ops.each import EachOp
from dataloaders.ops.numpy_op import Names, NumpyOp
from domains.codes import hadamard
from runtime.errors import UsageError


class Minmax(EachOp):
    """Scales each array from its own range to [new_min, new_max], float32; a constant array becomes new_min."""

    def __init__(
        self,
        inputs: Names,
        outputs: Names,
        mode: Names = None,
        ds_id: Names = None,
        epsilon: float = 1e-7,
        new_min: float = 0.0,
        new_max: float = 1.0,
    ):
        super().__init__(inputs, outputs, mode, ds_id)
        if new_max <= new_min:
            raise UsageError(f"Minmax: new_max must be above new_min, got {new_max} and {new_min}.")
        self.epsilon, self.new_min, self.new_max = epsilon, new_min, new_max

    def one(self, value: Any) -> np.ndarray:
        """The scaled array."""
        x = np.asarray(value, np.float32)
        low = x.min()
        return (x - low) / max(x.max() - low, self.epsilon) * (self.new_max - self.new_min) + np.float32(self.new_min)


class Onehot(EachOp):
    """Integer labels as one-hot rows (num_classes,) float32; the label keeps 1 - label_smoothing plus its share."""

    def __init__(
        self,
        inputs: Names,
        outputs: Names,
        num_classes: int,
        label_smoothing: float = 0.0,
        mode: Names = None,
        ds_id: Names = None,
    ):
        super().__init__(inputs, outputs, mode, ds_id)
        self.num_classes, self.label_smoothing = num_classes, label_smoothing

    def one(self, value: Any) -> np.ndarray:
        """(num_classes,), or (..., num_classes) for several labels; UsageError outside of 0..num_classes - 1."""
        hot = np.eye(self.num_classes, dtype=np.float32)[class_labels(self, value, self.num_classes)]
        return hot * np.float32(1 - self.label_smoothing) + np.float32(self.label_smoothing / self.num_classes)


class Binarize(EachOp):
    """1 where at least `threshold`, else 0, float32."""

    def __init__(self, threshold: float, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None):
        super().__init__(inputs, outputs, mode, ds_id)
        self.threshold = threshold

    def one(self, value: Any) -> np.ndarray:
        """The binary array."""
        return (np.asarray(value) >= self.threshold).astype(np.float32)


class Reshape(EachOp):
    """Each sample in another shape; one length may be -1."""

    def __init__(self, shape: int | tuple[int, ...], inputs: Names, outputs: Names, mode: Names = None,
                 ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.shape = shape

    def one(self, value: Any) -> np.ndarray:
        """The array in its new shape."""
        return np.reshape(value, self.shape)


class ExpandDims(EachOp):
    """Each sample with a new axis of length 1."""

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None, axis: int = -1):
        super().__init__(inputs, outputs, mode, ds_id)
        self.axis = axis

    def one(self, value: Any) -> np.ndarray:
        """The array with one axis more."""
        return np.expand_dims(value, self.axis)


class ChannelTranspose(EachOp):
    """Each sample with its axes in another order; by default (H, W, C) as (C, H, W)."""

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None,
                 axes: Sequence[int] = (2, 0, 1)):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.axes = tuple(axes)

    def one(self, value: Any) -> np.ndarray:
        """The transposed array."""
        return np.transpose(value, self.axes)


class ToArray(EachOp):
    """Each sample as an array, of `dtype` or the type NumPy infers."""

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None,
                 dtype: str | None = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.dtype = dtype

    def one(self, value: Any) -> np.ndarray:
        """The array."""
        return np.array(value, dtype=self.dtype)


class Hadamard(EachOp):
    """Integer labels as codewords (code_length,) float32 of +1 and -1; `UnHadamard` turns a network's into classes.

    n_classes, code_length: see domains.codes.hadamard.
    """

    def __init__(self, inputs: Names, outputs: Names, n_classes: int, code_length: int | None = None,
                 mode: Names = None, ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.codes = hadamard(n_classes, code_length)

    def one(self, value: Any) -> np.ndarray:
        """(code_length,), or (..., code_length) for several labels."""
        return self.codes[class_labels(self, value, len(self.codes))]


class LambdaOp(NumpyOp):
    """Any function of the inputs, `fn(*inputs)`."""

    def __init__(self, fn: Callable, inputs: Names = None, outputs: Names = None, mode: Names = None,
                 ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.fn = fn

    def set_rua_level(self, magnitude_coef: float) -> None:
        """Nothing: a function has no strength that RUA could set."""

    def forward(self, data: Any, state: Any) -> Any:
        """What the function returns."""
        return self.fn(*data) if self.in_list else self.fn(data)


def class_labels(op: NumpyOp, value: Any, count: int) -> np.ndarray:
    """Integer labels, 0-d for a single one; UsageError for another type or outside of 0..count - 1."""
    label, name = np.asarray(value), type(op).__name__
    if not np.issubdtype(label.dtype, np.integer):
        raise UsageError(f"{name} needs integer labels, got {label.dtype}.")
    if label.min() < 0 or label.max() >= count:
        raise UsageError(f"{name} needs labels in 0..{count - 1}, got {label.min()}..{label.max()}.")
    return label.reshape(()) if label.size == 1 else label
