"""The focal loss of dense detection."""

from collections.abc import Sequence
from typing import Literal

import mlx.core as mx

from ops.loss_op import LossOp
from ops.losses.cross_entropy import FLOOR, binary_entropies
from ops.losses.targets import matched
from runtime.errors import UsageError
from runtime.op import Context, masked_mean

Reduction = Literal["none", "mean", "sum"]


class FocalLoss(LossOp):
    """-alpha_t (1 - p_t)^gamma ln p_t, every class a yes-or-no question of its own (arXiv 1708.02002, eq. 5).

    y_pred (B, C), (B, ..., C), (B,) or (B, 1); targets of that shape or class numbers. alpha: weight of "yes", that of
    "no" is 1 - alpha; None for no weights. normalize: a row's elements are divided by its number of positive targets
    (at least 1). shape_reduction: over a row's elements; sample_reduction: over the rows. A shape_reduction of "none"
    needs a sample_reduction of "none" and gives y_pred's shape.
    """

    def __init__(
        self,
        inputs: str | Sequence[str],
        outputs: str | Sequence[str],
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        sample_reduction: Reduction = "mean",
        shape_reduction: Reduction = "sum",
        from_logits: bool = False,
        normalize: bool = True,
        mode: str | Sequence[str] | None = "!infer",
        ds_id: str | Sequence[str] | None = None,
    ):
        super().__init__(inputs, outputs, mode, ds_id, sample_reduction != "none")
        alpha = None if alpha == -1 else alpha
        if gamma < 0 or not (alpha is None or 0 <= alpha <= 1):
            raise UsageError(f"FocalLoss: gamma >= 0 and alpha in 0..1 or None are needed, got {gamma} and {alpha}.")
        if not {sample_reduction, shape_reduction} <= {"none", "mean", "sum"}:
            raise UsageError(
                f"FocalLoss: reductions must be none, mean or sum, got {sample_reduction!r} and {shape_reduction!r}."
            )
        if shape_reduction == "none" and sample_reduction != "none":
            raise UsageError(f"FocalLoss: shape_reduction none needs sample_reduction none, got {sample_reduction}.")
        self.gamma, self.alpha, self.from_logits, self.normalize = gamma, alpha, from_logits, normalize
        self.sample_reduction, self.shape_reduction = sample_reduction, shape_reduction

    def per_sample(self, data: list[mx.array], state: Context) -> mx.array:
        """(B,), or y_pred's shape where nothing is reduced."""
        y_pred, y_true = data
        targets = matched(y_true, y_pred, binary=True)
        yes, no = (mx.sigmoid(y_pred), mx.sigmoid(-y_pred)) if self.from_logits else (y_pred, 1 - y_pred)
        miss = mx.maximum(yes * (1 - targets) + no * targets, FLOOR)  # 1 - p_t; a power's slope at 0 may be infinite
        losses = binary_entropies(y_pred, targets, self.from_logits) * miss**self.gamma
        if self.alpha is not None:
            losses = losses * (self.alpha * targets + (1 - self.alpha) * (1 - targets))
        flat = losses.reshape(losses.shape[0], -1)
        if self.normalize:
            flat = flat / mx.maximum(targets.reshape(flat.shape).sum(axis=1, keepdims=True), 1)
        if self.shape_reduction == "none":
            return flat.reshape(losses.shape)
        return flat.sum(axis=1) if self.shape_reduction == "sum" else flat.mean(axis=1)

    def reduce(self, rows: mx.array, mask: mx.array | None) -> mx.array:
        """The mean or the sum of the rows that count."""
        if self.sample_reduction == "mean":
            return masked_mean(rows, mask)
        return rows.sum() if mask is None else mx.where(mask > 0, rows, 0).sum()
