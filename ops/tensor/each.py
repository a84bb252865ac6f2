"""What tensor ops share that treat every input alike."""

from collections.abc import Sequence

import mlx.core as mx

from runtime.errors import UsageError
from runtime.op import Context, TensorOp

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


def floating(x: mx.array) -> mx.array:
    """x (...) itself where its type is a floating one, else x in float32; of the same shape."""
    return x if mx.issubdtype(x.dtype, mx.floating) else x.astype(mx.float32)
