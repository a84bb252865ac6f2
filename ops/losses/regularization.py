"""Penalties on weights."""

from collections.abc import Sequence
from functools import reduce
from operator import add

import mlx.core as mx
import mlx.nn as nn

from runtime.op import Context, TensorOp, by_name
from runtime.slots import snapshot


class L2Regularization(TensorOp):
    """Adds beta / 2 times the sum of squares of a model's trainable weights to a loss.

    inputs: the loss, a number or one a row (B,). The output is a loss as well; the update must name it.
    """

    def __init__(
        self,
        inputs: str,
        outputs: str,
        model: nn.Module,
        mode: str | Sequence[str] | None = None,
        beta: float = 0.01,
        ds_id: str | Sequence[str] | None = None,
    ):
        super().__init__(inputs, outputs, mode, ds_id)
        self.model, self.beta, self.losses = model, beta, self.outputs
        self.models = by_name(model)

    def forward(self, data: mx.array, state: Context) -> mx.array:
        """Of the loss's shape."""
        squares = [w.astype(mx.float32).square().sum() for w in snapshot(self.model.trainable_parameters()).values()]
        return data + 0.5 * self.beta * reduce(add, squares, mx.array(0.0))


L2Regularizaton = L2Regularization  # FastEstimator's spelling
