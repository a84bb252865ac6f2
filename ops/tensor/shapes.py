"""Ops on arrays, any number of keys at once: shapes, indices, averages, functions."""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from runtime.errors import UsageError
from runtime.op import Batch, Context, Op, TensorOp

Names = str | Sequence[str] | None


class Each(TensorOp):
    """An op that treats every input alike: `one` gives the output of one input."""

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None):
        super().__init__(inputs, outputs, mode, ds_id)
        if len(self.inputs) != len(self.outputs):
            got = f"{len(self.inputs)} and {len(self.outputs)}"
            raise UsageError(f"{type(self).__name__} needs as many outputs as inputs, got {got}.")
        self.in_list = self.out_list = True

    def forward(self, data: list[mx.array], state: Context) -> list[mx.array]:
        """The outputs in order."""
        return [self.one(x) for x in data]

    def one(self, x: mx.array) -> mx.array:
        """The output of one input."""
        raise NotImplementedError


class Argmax(Each):
    """The index of the greatest value along an axis, int32; the class axis by default."""

    def __init__(self, inputs: Names, outputs: Names, axis: int = -1, mode: Names = None, ds_id: Names = None):
        super().__init__(inputs, outputs, mode, ds_id)
        self.axis = axis

    def one(self, x: mx.array) -> mx.array:
        """x's shape without the axis."""
        return x.argmax(axis=self.axis).astype(mx.int32)


class Permute(Each):
    """Reorders the axes, the batch's among them."""

    def __init__(self, inputs: Names, outputs: Names, permutation: Sequence[int], mode: Names = None,
                 ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.permutation = tuple(permutation)

    def one(self, x: mx.array) -> mx.array:
        """The same values under another order of axes."""
        return x.transpose(*self.permutation)


class Reshape(Each):
    """Gives the array a shape, the batch's axis included; one length may be -1."""

    def __init__(self, inputs: Names, outputs: Names, shape: Sequence[int], mode: Names = None, ds_id: Names = None):
        super().__init__(inputs, outputs, mode, ds_id)
        self.shape = tuple(shape)

    def one(self, x: mx.array) -> mx.array:
        """Of the shape asked for."""
        return x.reshape(self.shape)


class Average(TensorOp):
    """The mean of several arrays of one shape."""

    def __init__(self, inputs: Names, outputs: str, mode: Names = None, ds_id: Names = None):
        super().__init__(inputs, outputs, mode, ds_id)
        self.in_list = True

    def forward(self, data: list[mx.array], state: Context) -> mx.array:
        """Of the inputs' shape."""
        return sum(data[1:], data[0]) / len(data)


class LambdaOp(TensorOp):
    """Calls a function on the inputs, one argument each."""

    def __init__(self, fn: Callable[..., Any], inputs: Names = (), outputs: Names = (), mode: Names = None,
                 ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.fn = fn

    def forward(self, data: Any, state: Context) -> Any:
        """What the function returns."""
        return self.fn(*(data if self.in_list else [data]))


class Delete(Op):
    """Takes keys out of the data."""

    def __init__(self, keys: str | Sequence[str], mode: Names = None, ds_id: Names = None):
        super().__init__(keys, (), mode, ds_id)

    def forward(self, data: Batch, ctx: Context) -> Any:
        """None for each key."""
        return dict.fromkeys(self.inputs)
