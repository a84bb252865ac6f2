"""Images and volumes in another size."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from ops.tensor.each import Each, Names, floating
from runtime.errors import UsageError

MODES = ("nearest", "area", "bilinear")


class Resize(Each):
    """Images (B, H, W, C) resized to `output_shape` (H, W), as PyTorch's `interpolate` does without aligned corners.

    resize_mode: "nearest" (any type stays), "area" (means over the pixels that a new one touches) or "bilinear" (no
    smoothing where an image shrinks). "area" and "bilinear" make integers float32.
    """

    axes, modes = "HW", MODES

    def __init__(self, inputs: Names, outputs: Names, output_shape: Sequence[int], resize_mode: str = "nearest",
                 mode: Names = None, ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        if resize_mode not in self.modes:
            raise UsageError(
                f"{type(self).__name__}: resize_mode is one of {', '.join(self.modes)}, got {resize_mode!r}."
            )
        if len(output_shape) != len(self.axes) or min(output_shape) < 1:
            needed = ", ".join(self.axes)
            raise UsageError(f"{type(self).__name__} needs an output_shape ({needed}), got {tuple(output_shape)}.")
        self.output_shape, self.resize_mode = tuple(output_shape), resize_mode

    def one(self, x: mx.array) -> mx.array:
        """Of the new size, the batch's and the channel's axis as they were."""
        if x.ndim != len(self.axes) + 2:
            raise UsageError(f"{type(self).__name__} needs (B, {', '.join(self.axes)}, C), got shape {x.shape}.")
        for axis, size in enumerate(self.output_shape, start=1):
            x = resized(x, axis, size, self.resize_mode)
        return x


class Resize3D(Resize):
    """Volumes (B, H, W, D, C) resized to `output_shape` (H, W, D) by "nearest" or "area"; see Resize."""

    axes, modes = "HWD", ("nearest", "area")


def resized(x: mx.array, axis: int, size: int, mode: str) -> mx.array:
    """x (B, ...) with `size` places along an axis."""
    old = x.shape[axis]
    if size == old:
        return x if mode == "nearest" else floating(x)
    if mode == "nearest":
        return mx.take(x, mx.array(np.arange(size) * old // size), axis=axis)
    x = floating(x)
    matrix = mx.array(shares(old, size) if mode == "area" else tents(old, size)).astype(x.dtype)
    return mx.moveaxis(mx.moveaxis(x, axis, -1) @ matrix.T, -1, axis)


def shares(old: int, size: int) -> np.ndarray:
    """(size, old): place i is the mean of the old ones that [i old / size, (i + 1) old / size) touches."""
    first, last = np.arange(size) * old // size, -(np.arange(1, size + 1) * -old // size)
    places = np.arange(old)
    inside = (places >= first[:, None]) & (places < last[:, None])
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)


def tents(old: int, size: int) -> np.ndarray:
    """(size, old): linear interpolation between the old places' centres, constant beyond the outermost ones."""
    centre = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    return np.maximum(1 - np.abs(centre[:, None] - np.arange(old)), 0).astype(np.float32)
