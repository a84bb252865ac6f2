"""How often which class was taken for which."""

from collections.abc import Sequence

import numpy as np

from runtime.errors import UsageError
from traces.metrics.metric import MODES, Metric, labels


class ConfusionMatrix(Metric):
    """Counts (C, C) of true class (row) and predicted class (column); labels from num_classes on are left out.

    normalize: "true" (rows sum to 1), "pred" (columns), "all" or None. Raises UsageError for another one.
    """

    def __init__(self, true_key: str, pred_key: str, num_classes: int, mode: str | Sequence[str] | None = MODES,
                 ds_id: str | Sequence[str] | None = None, output_name: str = "confusion_matrix",
                 per_ds: bool = True, normalize: str | None = None):  # fmt: skip
        super().__init__(true_key, pred_key, mode, ds_id, output_name, per_ds)
        if normalize not in (None, "true", "pred", "all"):
            raise UsageError(f'normalize must be "true", "pred", "all" or None, got {normalize!r}.')
        self.num_classes, self.normalize = num_classes, normalize

    def gather(self, true: np.ndarray, pred: np.ndarray) -> np.ndarray:
        """The counts of one batch."""
        return counts(*labels(true, pred), self.num_classes)

    def value(self, gathered: list[np.ndarray]) -> np.ndarray:
        """The counts of all, or shares; an empty row or column has shares of 0."""
        matrix = np.sum(gathered, axis=0)
        if self.normalize is None:
            return matrix
        total = matrix.sum(axis={"true": 1, "pred": 0, "all": None}[self.normalize], keepdims=True)
        return np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)


def counts(true: np.ndarray, pred: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix (C, C) of two label vectors (B,), C classes."""
    known = (true >= 0) & (true < classes) & (pred >= 0) & (pred < classes)
    flat = np.bincount(true[known] * classes + pred[known], minlength=classes * classes)
    return flat.reshape(classes, classes)
