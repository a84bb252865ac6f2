"""BLEU of token sequences."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from runtime.errors import UsageError
from traces.metrics.metric import MODES, Metric

SMOOTH = 5  # Chen and Cherry's K


class BleuScore(Metric):
    """BLEU of whole evaluations up to n_gram-grams (Papineni et al. 2002), one reference a row, 0 to 1.

    true, pred: tokens (B, L), or scores (B, L, V) of which the largest counts; token 0 is padding. n-grams without any
    match are smoothed as in method 4 of Chen and Cherry 2014 (W14-3346); without a matching token the score is 0.
    Raises UsageError for n_gram below 1.
    """

    def __init__(self, true_key: str, pred_key: str, mode: str | Sequence[str] | None = MODES,
                 ds_id: str | Sequence[str] | None = None, output_name: str = "bleu_score", n_gram: int = 4,
                 per_ds: bool = True):  # fmt: skip
        super().__init__(true_key, pred_key, mode, ds_id, output_name, per_ds)
        if n_gram < 1:
            raise UsageError(f"n_gram must be at least 1, got {n_gram}.")
        self.n_gram = n_gram

    def gather(self, true: np.ndarray, pred: np.ndarray) -> np.ndarray:
        """Matches and n-grams by order, then the lengths of references and predictions: (2, n_gram + 1)."""
        total = np.zeros((2, self.n_gram + 1), np.int64)
        for reference, found in zip(_tokens(true), _tokens(pred), strict=True):
            total[:, -1] += len(reference), len(found)
            for n in range(1, self.n_gram + 1):
                known, said = _grams(reference, n), _grams(found, n)
                total[:, n - 1] += (said & known).total(), max(1, said.total())
        return total

    def value(self, gathered: list[np.ndarray]) -> float:
        """The brevity penalty times the geometric mean of the precisions."""
        total = np.sum(gathered, axis=0)
        (*matches, reference), (*grams, length) = total.tolist()
        if matches[0] == 0:
            return 0.0
        logs, missing = 0.0, 0
        for match, count in zip(matches, grams, strict=True):
            if match == 0 and length > 1:
                missing += 1
                match = math.log(length) / (2**missing * SMOOTH)
            if match > 0:
                logs += math.log(match / count) / self.n_gram
        return min(1.0, math.exp(1 - reference / length)) * math.exp(logs)


def _tokens(array: np.ndarray) -> list[list[int]]:
    rows = array.argmax(-1) if array.ndim > 2 else array
    return [[int(token) for token in row if token != 0] for row in rows]


def _grams(tokens: list[int], n: int) -> Counter:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
