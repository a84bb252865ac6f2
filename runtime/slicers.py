"""Batches cut into slices, and what was made of the slices put together again; of NumPy and MLX arrays alike.

A Slicer says which keys it cuts (`slice`) and which it puts together (`unslice`). `ops/sliced.py` runs a network's ops
on every slice, `dataloaders/datasets/sliced.py` makes every slice a sample.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError
from runtime.op import as_tuple

Names = str | Sequence[str] | None
Shape = tuple[int, ...]
PADDING = ("drop", "partial", "constant", "nopad", "mirror")


class Slicer:
    """Cuts the keys of `slice` and puts those of `unslice` together; an empty tuple (the default): those of `slice`.

    mode, ds_id: as for ops. Keys that are not cut are the same in every slice.
    """

    def __init__(self, slice: Names = None, unslice: Names = (), mode: Names = None, ds_id: Names = None):
        self.slice = as_tuple(slice)
        self.unslice = self.slice if isinstance(unslice, tuple) and not unslice else as_tuple(unslice)
        self.mode, self.ds_id = mode, ds_id
        if not (self.slice or self.unslice):
            raise UsageError(f"{type(self).__name__} needs a key to slice or to unslice, got none.")

    def cut(self, array: Any) -> list[Any]:
        """The slices of an array."""
        raise UsageError(f"{type(self).__name__} puts slices together only; leave its `slice` out.")

    def join(self, slices: Sequence[Any], shape: Shape | None) -> Any:
        """The whole, from one array a slice. shape: of the array that was cut, where there is one."""
        raise NotImplementedError


class AxisSlicer(Slicer):
    """A slice for every place along `axis`, which the slices lack: (B, D, H, W, C) with axis=1 gives D of (B, H, W, C).

    What is put together gets the axis in the same place.
    """

    def __init__(self, axis: int, slice: Names = None, unslice: Names = (), mode: Names = None, ds_id: Names = None):
        super().__init__(slice, unslice, mode, ds_id)
        self.axis = axis

    def cut(self, array: Any) -> list[Any]:
        """One array for each place; UsageError where there is no such axis."""
        if not -array.ndim <= self.axis < array.ndim:
            raise UsageError(f"AxisSlicer: there is no axis {self.axis} in an array of shape {tuple(array.shape)}.")
        before = (np.s_[:],) * (self.axis % array.ndim)
        return [array[(*before, place)] for place in range(array.shape[self.axis])]

    def join(self, slices: Sequence[Any], shape: Shape | None = None) -> Any:
        """The slices stacked along the axis."""
        return library(slices[0]).stack(list(slices), axis=self.axis)


class MeanUnslicer(Slicer):
    """The mean of the slices, for what a network says of the whole from each of them."""

    def __init__(self, unslice: Names, mode: Names = None, ds_id: Names = None):
        super().__init__(None, unslice, mode, ds_id)

    def join(self, slices: Sequence[Any], shape: Shape | None = None) -> Any:
        """The mean, of one slice's shape."""
        return sum(slices[1:], slices[0]) / len(slices)


class SlidingSlicer(Slicer):
    """Windows of an array, the last axis' places fastest.

    window_size: one number an axis, the batch axis included; -1 takes all of it. strides: one number for all axes that
    are cut, or one an axis; default: the windows' sizes, without overlap. pad_mode, where the last window does not fit:
    "drop" leaves it out, "partial" makes it smaller, "constant" fills it up with pad_val, "mirror" with the array's
    reflection, "nopad" moves it back. unslice_mode: "avg" or "sum" where windows overlap; what no window covers becomes
    pad_val. unslice_shape: of the whole, -1 for the batch axis; default: of the array that was cut, whose last axis
    may be another in what is put together. squeeze_window: axes with windows of 1 are taken out of the slices.
    """

    def __init__(self, window_size: Sequence[int], strides: int | Sequence[int] = (), pad_mode: str = "drop",
                 pad_val: float = 0.0, slice: Names = None, unslice: Names = (), unslice_mode: str = "avg",
                 unslice_shape: Sequence[int] | None = None, squeeze_window: bool = False, mode: Names = None,
                 ds_id: Names = None):  # fmt: skip
        super().__init__(slice, unslice, mode, ds_id)
        self.window = tuple(window_size)
        whole = [size if size > 0 else 0 for size in self.window]
        if isinstance(strides, int):
            strides = [strides if size else 0 for size in whole]
        self.strides = tuple(strides) or tuple(whole)
        if not self.window or any(size < 1 and size != -1 for size in self.window):
            raise UsageError(f"SlidingSlicer needs windows of at least 1, or -1 for a whole axis, got {self.window}.")
        if len(self.strides) != len(self.window) or any(
            step < 1 and size != -1 for step, size in zip(self.strides, self.window, strict=True)
        ):
            raise UsageError(
                f"SlidingSlicer needs a stride from 1 for each window of {self.window}, got {self.strides}."
            )
        for name, value, valid in (("pad_mode", pad_mode, PADDING), ("unslice_mode", unslice_mode, ("avg", "sum"))):
            if value not in valid:
                raise UsageError(f"SlidingSlicer: {name} must be one of {', '.join(valid)}, got {value!r}.")
        if self.unslice and not self.slice and unslice_shape is None:
            raise UsageError("SlidingSlicer needs unslice_shape to put together what it did not cut, got None.")
        self.pad_mode, self.pad_val, self.unslice_mode = pad_mode, pad_val, unslice_mode
        self.unslice_shape = None if unslice_shape is None else tuple(unslice_shape)
        self.squeezed = tuple(i for i, size in enumerate(self.window) if squeeze_window and size == 1)

    def cut(self, array: Any) -> list[Any]:
        """The windows; UsageError for another number of axes, or where no window fits."""
        places = list(self.places(tuple(array.shape)))
        if not places:
            raise UsageError(f"SlidingSlicer: no window of {self.window} fits into shape {tuple(array.shape)}.")
        padded = self._padded(array)
        return [self._squeeze(padded[place]) for place in places]

    def join(self, slices: Sequence[Any], shape: Shape | None = None) -> Any:
        """The windows in their places. Windows of other channels, or without some last axes, give such a whole."""
        target = self.unslice_shape or shape
        assert target is not None
        first = self._spread(slices[0])
        target = tuple(first.shape[0] if size == -1 else size for size in target)
        target = tuple(size if self.window[i] != -1 else first.shape[i] for i, size in enumerate(target[: first.ndim]))
        places = list(self.places(target))
        if len(places) != len(slices):
            raise UsageError(
                f"SlidingSlicer got {len(slices)} slices; windows of {self.window} in {target} make {len(places)}."
            )
        xp = library(first)
        full = tuple(max(size, *(place[i].stop for place in places)) for i, size in enumerate(target))
        total, counts = xp.zeros(full, dtype=first.dtype), np.zeros(full, np.float32)
        for place, part in zip(places, slices, strict=True):
            total[place] = total[place] + self._spread(part)
            counts[place] += 1
        inside = tuple(np.s_[:size] for size in target)
        total, counts = total[inside], counts[inside]
        if self.unslice_mode == "avg" and counts.max() > 1:
            total = total / xp.array(np.maximum(counts, 1))
        return total if counts.min() > 0 else xp.where(xp.array(counts > 0), total, self.pad_val)

    def places(self, shape: Shape) -> Iterator[tuple[Any, ...]]:
        """The windows of an array of this shape, as tuples of slices; axes beyond the array's are left out."""
        if len(shape) > len(self.window):
            raise UsageError(f"SlidingSlicer has windows of {len(self.window)} axes, got an array of shape {shape}.")
        return itertools.product(*(self._along(axis, size) for axis, size in enumerate(shape)))

    def _along(self, axis: int, size: int) -> list[Any]:
        window, step = self.window[axis], self.strides[axis]
        if window == -1:
            return [np.s_[0:size]]
        found = []
        for start in range(0, size, step):
            stop = start + window
            if stop > size and self.pad_mode == "drop":
                break
            if stop > size and self.pad_mode == "nopad":
                start, stop = size - window, size
                if start < 0:
                    raise UsageError(f"SlidingSlicer: a window of {window} does not fit into {size} places; pad it.")
            found.append(np.s_[start : min(stop, size) if self.pad_mode == "partial" else stop])
            if stop >= size:
                break
        return found

    def _padded(self, array: Any) -> Any:
        if self.pad_mode not in ("constant", "mirror"):
            return array
        for axis, size in enumerate(array.shape):
            more = max(place.stop for place in self._along(axis, size)) - size
            if more > 0 and self.pad_mode == "constant":
                widths = [(0, more if i == axis else 0) for i in range(array.ndim)]
                array = library(array).pad(array, widths, constant_values=self.pad_val)
            elif more > 0:
                if more >= size:
                    raise UsageError(f"SlidingSlicer: {size} places can't be mirrored into {more} more; pad otherwise.")
                index = np.concatenate([np.arange(size), np.arange(size - 2, size - 2 - more, -1)])
                array = library(array).take(array, library(array).array(index), axis=axis)
        return array

    def _squeeze(self, part: Any) -> Any:
        axes = tuple(axis for axis in self.squeezed if axis < part.ndim)
        return part.squeeze(axes) if axes else part

    def _spread(self, part: Any) -> Any:
        for axis in self.squeezed:
            part = library(part).expand_dims(part, axis)
        return part


def library(array: Any) -> Any:
    """mlx.core or numpy, whichever an array is of."""
    return mx if isinstance(array, mx.array) else np
