"""What every loss shares: two inputs, one number or one number a row."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from runtime.op import Batch, Context, TensorOp, masked_mean


class LossOp(TensorOp):
    """A loss: `per_sample` gives one number a row, the op their mean.

    inputs: (y_pred, y_true). average_loss: write the mean over the rows whose `mask` is 1 (all rows where the batch has
    no mask), a 0-d array; otherwise the rows' losses (B,). The outputs are declared as losses. mode: there are no
    targets in "infer".
    """

    def __init__(
        self,
        inputs: str | Sequence[str],
        outputs: str | Sequence[str],
        mode: str | Sequence[str] | None = "!infer",
        ds_id: str | Sequence[str] | None = None,
        average_loss: bool = True,
    ):
        super().__init__(inputs, outputs, mode, ds_id)
        self.average_loss, self.losses = average_loss, self.outputs

    def __call__(self, data: Batch, ctx: Context) -> Batch:
        """The loss under the op's output."""
        picked = [data[name] for name in self.inputs]
        rows = self.per_sample(picked if self.in_list else picked[0], ctx)
        loss = self.reduce(rows, data.get("mask")) if self.average_loss else rows
        return self.named([loss] if self.out_list else loss)

    def per_sample(self, data: Any, state: Context) -> mx.array:
        """The loss of every row, (B,)."""
        raise NotImplementedError

    def reduce(self, rows: mx.array, mask: mx.array | None) -> mx.array:
        """What `average_loss` makes of the rows (B,): the mean of those that count."""
        return masked_mean(rows, mask)
