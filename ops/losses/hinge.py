"""The hinge loss of margins."""

import mlx.core as mx

from ops.loss_op import LossOp
from ops.losses.targets import matched, per_row
from runtime.op import Context


class Hinge(LossOp):
    """max(0, 1 - y y_pred), each row's mean, y = 1 or -1.

    y_pred (B, C), (B,) or (B, 1); targets of that shape, in -1/1 or 0/1 (0 counts as -1), or class numbers.
    """

    def per_sample(self, data: list[mx.array], state: Context) -> mx.array:
        """(B,)."""
        y_pred, y_true = data
        targets = matched(y_true, y_pred, binary=True)
        signs = mx.where(targets == 0, -1.0, targets)
        return per_row(mx.maximum(1 - signs * y_pred, 0))
