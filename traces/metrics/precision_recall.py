"""Precision, recall and F1 of labels, and Matthews' coefficient."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.errors import UsageError
from traces.metrics.confusion_matrix import counts
from traces.metrics.metric import MODES, Metric, has_classes, joined, labels

AVERAGES = (None, "micro", "macro", "weighted")


class Labelled(Metric):
    """A metric of the labels of all rows.

    true: labels (B,), (B, 1) or one-hot (B, C). pred: scores (B, C), or one score a row (B,) or (B, 1), rounded. One
    score a row with labels 0 and 1 is binary: the value is that of class `pos_label`. Otherwise there is one value
    for each class that occurs, in order, or their `average` ("micro", "macro", "weighted" by true rows).
    zero_division: the value where there is nothing to divide by. Raises UsageError for another average.
    """

    default_name = ""

    def __init__(self, true_key: str, pred_key: str, mode: str | Sequence[str] | None = MODES,
                 ds_id: str | Sequence[str] | None = None, output_name: str | None = None, per_ds: bool = True,
                 average: str | None = None, pos_label: int = 1, zero_division: float = 0.0):  # fmt: skip
        super().__init__(true_key, pred_key, mode, ds_id, output_name or self.default_name, per_ds)
        if average not in AVERAGES:
            raise UsageError(f"average must be one of {AVERAGES}, got {average!r}.")
        self.average, self.pos_label, self.zero_division = average, pos_label, zero_division

    def gather(self, true: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """Labels, and whether the scores were of classes."""
        return *labels(true, pred), has_classes(pred)

    def value(self, gathered: list[tuple[np.ndarray, np.ndarray, bool]]) -> Any:
        """One number, or one for each class (C,)."""
        true, pred = joined([(t, p) for t, p, _ in gathered])
        present, both = np.unique(np.concatenate([true, pred]), return_inverse=True)
        matrix = counts(both[: true.size], both[true.size :], present.size)
        hits, found, known = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
        if not gathered[0][2] and set(present) <= {0, 1} and self.average is None:
            at = int(np.searchsorted(present, self.pos_label))
            inside = at < present.size and present[at] == self.pos_label
            return self.ratio(*(array[at] if inside else 0 for array in (hits, found, known))).item()
        if self.average == "micro":
            return self.ratio(hits.sum(), found.sum(), known.sum()).item()
        each = self.ratio(hits, found, known)
        return each if self.average is None else np.average(each, weights=known if self.average == "weighted" else None)

    def ratio(self, hits: Any, found: Any, known: Any) -> np.ndarray:
        """The metric from right, predicted and true counts, elementwise."""
        raise NotImplementedError

    def divided(self, a: Any, b: Any) -> np.ndarray:
        """a / b, zero_division where b is 0."""
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return np.divide(a, b, out=np.full(np.shape(a), float(self.zero_division)), where=b > 0)


class Precision(Labelled):
    """The share of a class's predictions that are right, of labels and scores (B, C) or (B,) as for Labelled."""

    default_name = "precision"

    def ratio(self, hits: Any, found: Any, known: Any) -> np.ndarray:
        """Right over predicted."""
        return self.divided(hits, found)


class Recall(Labelled):
    """The share of a class's rows that are found, of labels and scores (B, C) or (B,) as for Labelled."""

    default_name = "recall"

    def ratio(self, hits: Any, found: Any, known: Any) -> np.ndarray:
        """Right over true."""
        return self.divided(hits, known)


class F1Score(Labelled):
    """The harmonic mean of precision and recall, of labels and scores (B, C) or (B,) as for Labelled."""

    default_name = "f1_score"

    def ratio(self, hits: Any, found: Any, known: Any) -> np.ndarray:
        """Twice right over predicted plus true."""
        return self.divided(2 * np.asarray(hits), np.asarray(found) + known)


class MCC(Metric):
    """Matthews' correlation of two labellings: 1 right, 0 chance (any number of classes, Gorodkin 2004, eq. 8).

    true: labels (B,), (B, 1) or one-hot (B, C). pred: scores (B, C), or one score a row (B,) or (B, 1), rounded.
    """

    def __init__(self, true_key: str, pred_key: str, mode: str | Sequence[str] | None = MODES,
                 ds_id: str | Sequence[str] | None = None, output_name: str = "mcc", per_ds: bool = True):  # fmt: skip
        super().__init__(true_key, pred_key, mode, ds_id, output_name, per_ds)

    def gather(self, true: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels."""
        return labels(true, pred)

    def value(self, gathered: list[tuple[np.ndarray, np.ndarray]]) -> float:
        """The coefficient; 0 where one side has a single class."""
        true, pred = joined(gathered)
        present, both = np.unique(np.concatenate([true, pred]), return_inverse=True)
        matrix = counts(both[: true.size], both[true.size :], present.size).astype(np.float64)
        known, found, rows = matrix.sum(1), matrix.sum(0), matrix.sum()
        spread = (rows**2 - (known**2).sum()) * (rows**2 - (found**2).sum())
        return float((matrix.trace() * rows - known @ found) / np.sqrt(spread)) if spread > 0 else 0.0
