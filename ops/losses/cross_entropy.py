"""Cross-entropies: binary, over one-hot targets and over class numbers."""

from collections.abc import Sequence
from typing import Literal

import mlx.core as mx

from ops.loss_op import LossOp
from ops.losses.targets import in_range, is_classes, matched, per_row
from runtime.errors import UsageError
from runtime.op import Context

Form = Literal["binary", "categorical", "sparse"]
FLOOR = 1e-30  # of a probability whose logarithm is taken


def log_probabilities(y_pred: mx.array, from_logits: bool) -> mx.array:
    """ln of the class probabilities (..., C), over the last axis."""
    if from_logits:
        return y_pred - mx.logsumexp(y_pred, axis=-1, keepdims=True)
    return mx.log(mx.maximum(y_pred, FLOOR))


def binary_entropies(y_pred: mx.array, targets: mx.array, from_logits: bool) -> mx.array:
    """-y ln p - (1 - y) ln(1 - p) of every element, same shapes."""
    if from_logits:
        return mx.logaddexp(y_pred, 0.0) - y_pred * targets
    return -targets * mx.log(mx.maximum(y_pred, FLOOR)) - (1 - targets) * mx.log(mx.maximum(1 - y_pred, FLOOR))


class CrossEntropy(LossOp):
    """Cross-entropy of y_pred (B, C), (B, ..., C), or binary (B,), (B, ..., 1), against class numbers or one-hot rows.

    from_logits: y_pred are logits, otherwise probabilities. form: None chooses by shape as FastEstimator does:
    "categorical" or "sparse" for (B, C), C > 1, and for class numbers of any (B, ..., C), else "binary". class_weights:
    factors of classes, 1 where unnamed; the mean still divides by the number of rows. label_smoothing s: targets become
    (1 - s) y + s / C (C = 2 for binary). A row is the mean of its places. Class numbers outside 0..C-1 give NaN.
    """

    def __init__(
        self,
        inputs: str | Sequence[str],
        outputs: str | Sequence[str],
        mode: str | Sequence[str] | None = "!infer",
        ds_id: str | Sequence[str] | None = None,
        from_logits: bool = False,
        average_loss: bool = True,
        form: Form | None = None,
        class_weights: dict[int, float] | None = None,
        label_smoothing: float = 0.0,
    ):
        super().__init__(inputs, outputs, mode, ds_id, average_loss)
        if form not in (None, "binary", "categorical", "sparse"):
            raise UsageError(f"CrossEntropy: form must be binary, categorical, sparse or None, got {form!r}.")
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"CrossEntropy: label_smoothing must lie in [0, 1), got {label_smoothing}.")
        if any(int(k) != k or k < 0 for k in class_weights or {}):
            raise UsageError(f"CrossEntropy: class_weights has keys {list(class_weights or {})}; class numbers needed.")
        self.from_logits, self.form, self.smoothing = from_logits, form, label_smoothing
        self.class_weights = class_weights or {}

    def per_sample(self, data: list[mx.array], state: Context) -> mx.array:
        """(B,)."""
        y_pred, y_true = data
        form = self.form or self.chosen(y_pred, y_true)
        if form == "binary":
            targets = matched(y_true, y_pred, binary=True)
            smooth = targets * (1 - self.smoothing) + self.smoothing / 2
            return per_row(binary_entropies(y_pred, smooth, self.from_logits) * self.weights(targets, 2))
        logs = log_probabilities(y_pred, self.from_logits)
        count = y_pred.shape[-1]
        if is_classes(y_true, y_pred):
            given = y_true.reshape(y_pred.shape[:-1])
            classes = given.astype(mx.int32)
            inside = mx.clip(classes, 0, count - 1)
            entropies = -mx.take_along_axis(logs, inside[..., None], axis=-1).squeeze(-1) * in_range(given, count)
        else:
            targets = matched(y_true, y_pred)
            classes, entropies = targets.argmax(axis=-1), -(targets * logs).sum(axis=-1)
        if self.smoothing:
            entropies = (1 - self.smoothing) * entropies - self.smoothing * logs.mean(axis=-1)
        return per_row(entropies * self.weights(classes, count))

    def chosen(self, y_pred: mx.array, y_true: mx.array) -> Form:
        """The form that the shapes call for."""
        if is_classes(y_true, y_pred):
            return "sparse"
        return "categorical" if y_pred.ndim == 2 and y_pred.shape[-1] > 1 else "binary"

    def weights(self, classes: mx.array, count: int) -> mx.array:
        """The factor of every place, of the classes' shape."""
        if not self.class_weights:
            return mx.array(1.0)
        table = mx.array([float(self.class_weights.get(i, 1.0)) for i in range(count)])
        return table[mx.clip(classes.astype(mx.int32), 0, count - 1)]
