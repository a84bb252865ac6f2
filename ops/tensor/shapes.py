"""Ops on arrays, any number of keys at once: shapes, indices, averages, functions."""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from ops.tensor.each import Each, Names
from runtime.errors import UsageError
from runtime.op import Batch, Context, Op, TensorOp


class Argmax(Each):
    """The index of the greatest value along an axis of x (B, ..., C), int32; the class axis by default: (B, ...)."""

    def __init__(self, inputs: Names, outputs: Names, axis: int = -1, mode: Names = None, ds_id: Names = None):
        super().__init__(inputs, outputs, mode, ds_id)
        self.axis = axis

    def one(self, x: mx.array) -> mx.array:
        """x's shape without the axis."""
        return x.argmax(axis=self.axis).astype(mx.int32)


class Permute(Each):
    """Reorders the axes of x (B, ...), the batch's among them."""

    def __init__(self, inputs: Names, outputs: Names, permutation: Sequence[int], mode: Names = None,
                 ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.permutation = tuple(permutation)

    def one(self, x: mx.array) -> mx.array:
        """The same values under another order of axes."""
        return x.transpose(*self.permutation)


class Reshape(Each):
    """Gives x (B, ...) a shape, the batch's axis included; one length may be -1."""

    def __init__(self, inputs: Names, outputs: Names, shape: Sequence[int], mode: Names = None, ds_id: Names = None):
        super().__init__(inputs, outputs, mode, ds_id)
        self.shape = tuple(shape)

    def one(self, x: mx.array) -> mx.array:
        """Of the shape asked for."""
        return x.reshape(self.shape)


class ExpandDims(Each):
    """Inserts an axis of length 1 into x (B, ...) at place `axis` of the result, the batch's axis counted."""

    def __init__(self, inputs: Names, outputs: Names, axis: int = -1, mode: Names = None, ds_id: Names = None):
        super().__init__(inputs, outputs, mode, ds_id)
        self.axis = axis

    def one(self, x: mx.array) -> mx.array:
        """x (B, ...) with one axis more."""
        return mx.expand_dims(x, self.axis)


class Squeeze(Each):
    """Takes an axis of length 1 out of x (B, ...); without `axis` all but the batch's. UsageError for a longer axis."""

    def __init__(self, inputs: Names, outputs: Names, axis: int | None = None, mode: Names = None,
                 ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.axis = axis

    def one(self, x: mx.array) -> mx.array:
        """x (B, ...) with fewer axes."""
        if self.axis is None:
            return x.squeeze(tuple(i for i in range(1, x.ndim) if x.shape[i] == 1))
        if not -x.ndim <= self.axis < x.ndim or x.shape[self.axis] != 1:
            raise UsageError(f"Squeeze needs an axis of length 1, got axis={self.axis} of shape {x.shape}.")
        return x.squeeze(self.axis)


class Average(TensorOp):
    """The mean of several arrays of one shape (B, ...)."""

    def __init__(self, inputs: Names, outputs: str, mode: Names = None, ds_id: Names = None):
        super().__init__(inputs, outputs, mode, ds_id)
        self.in_list = True

    def forward(self, data: list[mx.array], state: Context) -> mx.array:
        """Of the inputs' shape."""
        return sum(data[1:], data[0]) / len(data)


class LambdaOp(TensorOp):
    """Calls a function on the inputs (B, ...), one argument each."""

    def __init__(self, fn: Callable[..., Any], inputs: Names = (), outputs: Names = (), mode: Names = None,
                 ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.fn = fn

    def forward(self, data: Any, state: Context) -> Any:
        """What the function returns."""
        return self.fn(*(data if self.in_list else [data]))


class Delete(Op):
    """Takes keys out of the data, whatever shape (B, ...) they have."""

    def __init__(self, keys: str | Sequence[str], mode: Names = None, ds_id: Names = None):
        super().__init__(keys, (), mode, ds_id)

    def forward(self, data: Batch, ctx: Context) -> Any:
        """None for each key."""
        return dict.fromkeys(self.inputs)
