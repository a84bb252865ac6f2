"""Mean average precision of boxes as COCO measures it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.errors import UsageError
from traces.metrics.metric import MODES, Metric

OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100  # detections of an image and class


class MeanAveragePrecision(Metric):
    """COCO's mean average precision: over overlaps .5 to .95 (mAP), at .5 (AP50) and at .75 (AP75).

    true: (B, N, 5) of x, y, width, height, label; rows of zeros are padding. pred: (B, M, 7) of x, y, width, height,
    label, score and 1 for a box that counts. Labels lie in [0, num_classes); classes without a true box do not count,
    and without any the value is -1. Raises UsageError for other shapes or not three output names.
    """

    def __init__(self, num_classes: int, true_key: str = "bbox", pred_key: str = "pred",
                 mode: str | Sequence[str] | None = MODES, ds_id: str | Sequence[str] | None = None,
                 output_name: Sequence[str] = ("mAP", "AP50", "AP75"), per_ds: bool = True):  # fmt: skip
        super().__init__(true_key, pred_key, mode, ds_id, output_name, per_ds)
        if len(self.outputs) != 3:
            raise UsageError(f"MeanAveragePrecision needs three output names, got {self.outputs}.")
        self.num_classes = num_classes

    def gather(self, true: np.ndarray, pred: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray, int]]:
        """For each image and class that occurs: class, scores (D,), matches (10, D), and the number of true boxes."""
        if true.ndim != 3 or true.shape[-1] != 5 or pred.ndim != 3 or pred.shape[-1] != 7:
            raise UsageError(f"boxes must be (B, N, 5) and (B, M, 7), got {true.shape} and {pred.shape}.")
        kept = []
        for known, found in zip(true.astype(np.float64), pred.astype(np.float64), strict=True):
            known, found = known[(known != 0).any(1)], found[found[:, 6] > 0]
            for label in range(self.num_classes):
                boxes, guesses = known[known[:, 4] == label], found[found[:, 4] == label]
                guesses = guesses[np.argsort(-guesses[:, 5], kind="stable")][:MOST]
                if len(boxes) or len(guesses):
                    hits = matches(overlap(guesses[:, :4], boxes[:, :4]))
                    kept.append((label, guesses[:, 5], hits, len(boxes)))
        return kept

    def value(self, gathered: list[Any]) -> dict[str, float]:
        """The three means."""
        parts = [part for batch in gathered for part in batch]
        means = []
        for label in range(self.num_classes):
            own = [part for part in parts if part[0] == label]
            if count := sum(part[3] for part in own):
                means.append(average_precision([p[1] for p in own], [p[2] for p in own], count))
        if not means:
            return dict.fromkeys(self.outputs, -1.0)
        mean = np.mean(means, axis=0)
        return dict(zip(self.outputs, (float(mean.mean()), float(mean[0]), float(mean[5])), strict=True))


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union (A, B) of boxes (A, 4) and (B, 4) of x, y, width, height."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None])
    shared = np.maximum(high - low, 0).prod(-1)
    return shared / np.maximum(a[:, 2:].prod(1)[:, None] + b[:, 2:].prod(1)[None] - shared, 1e-12)


def matches(overlaps: np.ndarray) -> np.ndarray:
    """Which detections (D, best score first) take a true box of (D, T) at each overlap: (10, D).

    Each takes the free box that it covers best, of equals the last.
    """
    hits = np.zeros((len(OVERLAPS), len(overlaps)), bool)
    for i, least in enumerate(OVERLAPS):
        free = np.ones(overlaps.shape[1], bool)
        for d, row in enumerate(overlaps):
            open_row = np.where(free, row, -1.0)
            if free.any() and open_row.max() >= min(least, 1 - 1e-10):
                best = len(row) - 1 - int(open_row[::-1].argmax())
                hits[i, d], free[best] = True, False
    return hits


def average_precision(scores: list[np.ndarray], hits: list[np.ndarray], count: int) -> np.ndarray:
    """Precision averaged over 101 recalls, at each overlap (10,), of scores (D,) and hits (10, D) for `count` boxes."""
    order = np.argsort(-np.concatenate(scores), kind="stable")
    right = np.concatenate(hits, axis=1)[:, order].cumsum(1)
    recall, precision = right / count, right / np.arange(1, right.shape[1] + 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    means = np.zeros(len(right))
    for i, (curve, heights) in enumerate(zip(recall, precision, strict=True)):
        at = np.searchsorted(curve, RECALLS, side="left")
        means[i] = heights[at[at < len(heights)]].sum() / len(RECALLS)
    return means
