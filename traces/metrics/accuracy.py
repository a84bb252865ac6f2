"""The share of right labels."""

from collections.abc import Sequence

import numpy as np

from traces.metrics.metric import MODES, Metric, labels


class Accuracy(Metric):
    """Right predictions over all predictions.

    true: integers or one-hot. pred: scores (B, C), or one score a row, rounded (from_logits: after a sigmoid).
    """

    def __init__(self, true_key: str, pred_key: str, mode: str | Sequence[str] | None = MODES,
                 ds_id: str | Sequence[str] | None = None, from_logits: bool = False, output_name: str = "accuracy",
                 per_ds: bool = True):  # fmt: skip
        super().__init__(true_key, pred_key, mode, ds_id, output_name, per_ds)
        self.from_logits = from_logits

    def gather(self, true: np.ndarray, pred: np.ndarray) -> tuple[int, int]:
        """How many are right, and of how many."""
        known, found = labels(true, pred, self.from_logits)
        return int((known == found).sum()), known.size

    def value(self, gathered: list[tuple[int, int]]) -> float:
        """Right over all."""
        return sum(right for right, _ in gathered) / sum(count for _, count in gathered)
