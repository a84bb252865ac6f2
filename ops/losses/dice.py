"""The Dice coefficient of segmentations, and minus it as a loss."""

from collections.abc import Sequence

import mlx.core as mx

from ops.loss_op import LossOp
from ops.losses.targets import matched
from runtime.op import Context, masked_mean


def dice_scores(y_pred: mx.array, y_true: mx.array, soft: bool = False, epsilon: float = 1e-6) -> mx.array:
    """2 sum(p y) / (sum(p) + sum(y) + epsilon) over space, (B, C), of y_pred (B, ..., C) and targets or class numbers.

    soft: sums of squares in the denominator (arXiv 1606.04797). Predictions (B, C) have no space: every element is one.
    """
    targets = matched(y_true, y_pred)
    space = tuple(range(1, y_pred.ndim - 1))

    def total(x: mx.array) -> mx.array:
        return x.sum(axis=space) if space else x

    sizes = total(y_pred.square()) + total(targets.square()) if soft else total(y_pred) + total(targets)
    return 2 * total(y_pred * targets) / (sizes + epsilon)


def channel_table(weights: dict[int, float] | None, count: int) -> mx.array:
    """(C,), 1 where a channel is unnamed."""
    return mx.array([float((weights or {}).get(i, 1.0)) for i in range(count)])


class DiceLoss(LossOp):
    """Minus the Dice coefficient of probabilities (B, ..., C) against masks of that shape or class numbers (B, ...).

    soft_dice: squares in the denominator. channel_average: False keeps the channels, (C,) or (B, C). channel_weights:
    factors of channels. epsilon: added to the denominator.
    """

    def __init__(
        self,
        inputs: str | Sequence[str],
        outputs: str | Sequence[str],
        mode: str | Sequence[str] | None = "!infer",
        ds_id: str | Sequence[str] | None = None,
        soft_dice: bool = False,
        average_loss: bool = True,
        channel_average: bool = True,
        channel_weights: dict[int, float] | None = None,
        epsilon: float = 1e-6,
    ):
        super().__init__(inputs, outputs, mode, ds_id, average_loss)
        self.soft, self.channel_average, self.channel_weights = soft_dice, channel_average, channel_weights
        self.epsilon = epsilon

    def per_sample(self, data: list[mx.array], state: Context) -> mx.array:
        """(B,), or (B, C) without channel_average."""
        y_pred, y_true = data
        scores = dice_scores(y_pred, y_true, self.soft, self.epsilon)
        scores = scores * channel_table(self.channel_weights, scores.shape[1])
        return -(scores.mean(axis=1) if self.channel_average else scores)

    def reduce(self, rows: mx.array, mask: mx.array | None) -> mx.array:
        """The mean over the rows that count, channel by channel where these are kept."""
        if self.channel_average:
            return masked_mean(rows, mask)
        return mx.stack([masked_mean(rows[:, i], mask) for i in range(rows.shape[1])])
