"""Losses of differences: squares, absolute values, and both by the size of the difference."""

from collections.abc import Sequence
from typing import Literal

import mlx.core as mx

from ops.loss_op import LossOp
from ops.losses.targets import matched, per_row
from runtime.errors import UsageError
from runtime.op import Context


class MeanSquaredError(LossOp):
    """(y_pred - y_true)^2, each row's mean; class numbers count as one-hot rows where y_pred is (B, ..., C), C > 1."""

    def per_sample(self, data: list[mx.array], state: Context) -> mx.array:
        """(B,)."""
        y_pred, y_true = data
        return per_row((y_pred - matched(y_true, y_pred)).square())


class L1Loss(LossOp):
    """|d| of d = y_pred - y_true, each row's mean; y_pred (B, ...) and targets as in MeanSquaredError.

    loss_type: "L1"; "Huber": d^2 / 2 below beta, beta (|d| - beta / 2) above; "Smooth": Huber's over beta.
    """

    def __init__(
        self,
        inputs: str | Sequence[str],
        outputs: str | Sequence[str],
        mode: str | Sequence[str] | None = "!infer",
        ds_id: str | Sequence[str] | None = None,
        average_loss: bool = True,
        loss_type: Literal["L1", "Smooth", "Huber"] = "L1",
        beta: float = 1.0,
    ):
        super().__init__(inputs, outputs, mode, ds_id, average_loss)
        if loss_type not in ("L1", "Smooth", "Huber") or beta <= 0:
            raise UsageError(f"L1Loss: got {loss_type!r}, {beta}; needed: L1, Smooth or Huber, beta > 0.")
        self.loss_type, self.beta = loss_type, beta

    def per_sample(self, data: list[mx.array], state: Context) -> mx.array:
        """(B,)."""
        y_pred, y_true = data
        size = mx.abs(y_pred - matched(y_true, y_pred))
        if self.loss_type == "L1":
            return per_row(size)
        huber = mx.where(size < self.beta, 0.5 * size.square(), self.beta * (size - 0.5 * self.beta))
        return per_row(huber if self.loss_type == "Huber" else huber / self.beta)


L1_Loss = L1Loss  # FastEstimator's spelling
