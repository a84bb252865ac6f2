"""How often the right one of several is the most alike."""

from collections.abc import Sequence

import numpy as np

from runtime.errors import UsageError
from traces.metrics.metric import MODES, Metric, joined


class OneShotAccuracy(Metric):
    """The share of trials whose largest score is that of the matching pair; by chance 1 / ways.

    true: 1 for the matching pair, else 0, one a row. pred: scores, one a row, (B,) or (B, 1). A trial is `ways` rows in
    a row, as OneShotTrials orders them. Raises UsageError where trials are cut or have not one matching pair.
    """

    def __init__(self, true_key: str, pred_key: str, ways: int, mode: str | Sequence[str] | None = MODES,
                 ds_id: str | Sequence[str] | None = None, output_name: str = "one_shot_accuracy",
                 per_ds: bool = True):  # fmt: skip
        super().__init__(true_key, pred_key, mode, ds_id, output_name, per_ds)
        self.ways = ways

    def gather(self, true: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both as they are, (B,)."""
        return true.reshape(-1), pred.reshape(-1)

    def value(self, gathered: list[tuple[np.ndarray, np.ndarray]]) -> float:
        """Right trials over all."""
        true, pred = joined(gathered)
        if len(true) % self.ways or (true.reshape(-1, self.ways).sum(1) != 1).any():
            raise UsageError(
                f"OneShotAccuracy needs trials of {self.ways} rows with one match each, got {len(true)} rows."
            )
        return float((pred.reshape(-1, self.ways).argmax(1) == true.reshape(-1, self.ways).argmax(1)).mean())
