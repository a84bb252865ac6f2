"""The area under the ROC curve."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from runtime.errors import UsageError
from traces.metrics.metric import MODES, Metric, has_classes, joined


class AUCScore(Metric):
    """How often a positive row outscores a negative one, ties half.

    Binary: true (B,) of two values, pred (B,), (B, 1) or (B, 2) of which the second column counts. Several classes:
    true (B,) integers and pred (B, C) that sum to 1, with multi_class "ovr" (each class against the rest) or "ovo"
    (each pair, Hand and Till 2001). Several labels or one-hot: true (B, C) of 0 and 1. average: "macro", "weighted",
    "micro", "samples" or None (one value a class). max_fpr: binary only, the standardized area up to it (McClish 1989).
    labels: the classes of pred's columns. Raises UsageError for what has no area, a single class for example.
    """

    def __init__(self, true_key: str, pred_key: str, mode: str | Sequence[str] | None = MODES,
                 ds_id: str | Sequence[str] | None = None, output_name: str = "auc", average: str | None = "macro",
                 sample_weight: Sequence[float] | None = None, max_fpr: float | None = None,
                 multi_class: str = "raise", labels: Sequence[Any] | None = None, per_ds: bool = True):  # fmt: skip
        super().__init__(true_key, pred_key, mode, ds_id, output_name, per_ds)
        if max_fpr is not None and not 0 < max_fpr <= 1:
            raise UsageError(f"max_fpr must lie in (0, 1], got {max_fpr}.")
        if multi_class not in ("raise", "ovr", "ovo"):
            raise UsageError(f'multi_class must be "raise", "ovr" or "ovo", got {multi_class!r}.')
        if average not in (None, "micro", "macro", "weighted", "samples"):
            raise UsageError(f'average must be "micro", "macro", "weighted", "samples" or None, got {average!r}.')
        self.average, self.max_fpr, self.multi_class, self.labels = average, max_fpr, multi_class, labels
        self.sample_weight = sample_weight

    def gather(self, true: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both as they are, columns of one dropped."""
        return true if has_classes(true) else true.reshape(-1), pred if has_classes(pred) else pred.reshape(-1)

    def value(self, gathered: list[tuple[np.ndarray, np.ndarray]]) -> Any:
        """The area, or one for each class."""
        true, pred = joined(gathered)
        weight = np.ones(len(true)) if self.sample_weight is None else np.asarray(self.sample_weight, np.float64)
        if len(weight) != len(true):
            raise UsageError(f"sample_weight must have one weight for each of {len(true)} rows, got {len(weight)}.")
        if has_classes(true):
            return self._averaged(true, pred, weight)
        classes = np.unique(true) if self.labels is None else np.asarray(self.labels)
        if pred.ndim == 1 or pred.shape[1] == 2:
            return area(true == classes[-1], pred if pred.ndim == 1 else pred[:, 1], weight, self.max_fpr)
        return self._several(true, pred, weight, classes)

    def _several(self, true: np.ndarray, pred: np.ndarray, weight: np.ndarray, classes: np.ndarray) -> Any:
        if self.multi_class == "raise":
            raise UsageError('AUCScore of several classes needs multi_class="ovr" or "ovo", got "raise".')
        if pred.shape[1] != len(classes):
            raise UsageError(f"AUCScore needs a score for each of {len(classes)} classes, got {pred.shape[1]}.")
        if not np.allclose(pred.sum(1), 1, atol=1e-4):
            raise UsageError(f"AUCScore of several classes needs scores that sum to 1, got {pred.sum(1)[:3]}.")
        if self.multi_class == "ovr":
            return self._averaged(true[:, None] == classes, pred, weight)
        pairs, shares = [], []
        for a, b in combinations(range(len(classes)), 2):
            inside = (true == classes[a]) | (true == classes[b])
            one = [area(true[inside] == classes[c], pred[inside, c], weight[inside]) for c in (a, b)]
            pairs.append(sum(one) / 2)
            shares.append(inside.mean())
        return float(np.average(pairs, weights=shares if self.average == "weighted" else None))

    def _averaged(self, true: np.ndarray, pred: np.ndarray, weight: np.ndarray) -> Any:
        if true.shape != pred.shape:
            raise UsageError(f"AUCScore needs a score for each label of {true.shape}, got {pred.shape}.")
        if self.average == "micro":
            return area(true.reshape(-1) > 0, pred.reshape(-1), np.repeat(weight, true.shape[1]))
        if self.average == "samples":
            rows = [area(t > 0, p, np.ones(len(t))) for t, p in zip(true, pred, strict=True)]
            return float(np.average(rows, weights=weight))
        each = np.array([area(t > 0, p, weight) for t, p in zip(true.T, pred.T, strict=True)])
        if self.average is None:
            return each
        return float(np.average(each, weights=weight @ (true > 0) if self.average == "weighted" else None))


def area(positive: np.ndarray, score: np.ndarray, weight: np.ndarray, max_fpr: float | None = None) -> float:
    """The area under the ROC curve of scores (B,) for rows that are positive or not (B,), weighted (B,)."""
    if not positive.any() or positive.all():
        raise UsageError(f"an area under the ROC curve needs both classes, got {positive.size} rows of one.")
    order = np.argsort(-score, kind="stable")
    score, positive, weight = score[order], positive[order], weight[order].astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(score)), score.size - 1)  # of each run of equal scores
    hits = np.append(0.0, np.cumsum(weight * positive)[last])
    alarms = np.append(0.0, np.cumsum(weight * ~positive)[last])
    x, y = alarms / alarms[-1], hits / hits[-1]
    if max_fpr is None or max_fpr == 1:
        return float(np.trapezoid(y, x))
    stop = int(np.searchsorted(x, max_fpr, side="right"))
    x, y = (
        np.append(x[:stop], max_fpr),
        np.append(y[:stop], np.interp(max_fpr, x[stop - 1 : stop + 1], y[stop - 1 : stop + 1])),
    )
    least = max_fpr**2 / 2
    return float(0.5 * (1 + (np.trapezoid(y, x) - least) / (max_fpr - least)))
