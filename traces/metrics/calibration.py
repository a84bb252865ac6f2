"""How far probabilities are from frequencies, and a calibrator with a guarantee (Kumar et al., arXiv 1909.10155)."""

from collections.abc import Sequence

import numpy as np

from runtime.errors import UsageError
from traces.metrics.metric import MODES, Metric, classes_of, has_classes, joined

BINS = 15


class CalibrationError(Metric):
    """The debiased root mean square difference of probability and frequency in bins.

    pred: probabilities (B, C), or (B,) of class 1. method: "marginal" (mean square over classes) or "top-label" (of the
    most probable class). Bins hold equal numbers of rows, 15 of them; where probabilities repeat (fewer values than a
    quarter of the rows) each value is one. confidence_interval: percent; also logs the interval's ends by bootstrap, as
    <output_name>_low and _high. Raises UsageError for another method or a percentage outside (0, 100).
    """

    def __init__(self, true_key: str, pred_key: str, mode: str | Sequence[str] | None = MODES,
                 ds_id: str | Sequence[str] | None = None, output_name: str = "calibration_error",
                 method: str = "marginal", confidence_interval: float | None = None,
                 per_ds: bool = True):  # fmt: skip
        super().__init__(true_key, pred_key, mode, ds_id, output_name, per_ds)
        if method not in ("marginal", "top-label"):
            raise UsageError(f'method must be "marginal" or "top-label", got {method!r}.')
        if confidence_interval is not None and not 0 < confidence_interval < 100:
            raise UsageError(f"confidence_interval must lie between 0 and 100, got {confidence_interval}.")
        self.method, self.interval = method, confidence_interval

    def gather(self, true: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels (B,) and probabilities (B, C) or (B,)."""
        return classes_of(true, len(pred)), pred if has_classes(pred) else pred.reshape(-1)

    def value(self, gathered: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """The error, and the ends of its interval."""
        true, pred = joined(gathered)
        name, pred = self.outputs[0], pred.astype(np.float64)
        out = {name: calibration_error(true, pred, self.method)}
        if self.interval is not None:
            rng, plain = np.random.default_rng(0), calibration_error(true, pred, self.method, debias=False)
            draws = (rng.integers(0, len(true), len(true)) for _ in range(100))
            again = [calibration_error(true[rows], pred[rows], self.method, debias=False) for rows in draws]
            tail = (100 - self.interval) / 2
            low, high = (2 * plain - np.percentile(again, q) for q in (100 - tail, tail))
            out |= {f"{name}_low": float(low), f"{name}_high": float(high)}
        return out


def calibration_error(true: np.ndarray, pred: np.ndarray, method: str = "marginal", debias: bool = True) -> float:
    """The L2 calibration error of probabilities (B, C) or (B,) for labels (B,)."""
    repeats = all(np.unique(column).size < len(pred) / 4 for column in np.atleast_2d(pred.T))
    if pred.ndim == 1:
        return _error(true == 1, pred, repeats, debias)
    if method == "top-label":
        return _error(pred.argmax(1) == true, pred.max(1), repeats, debias)
    squares = [_error(true == c, pred[:, c], repeats, debias) ** 2 for c in range(pred.shape[1])]
    return float(np.sqrt(np.mean(squares)))


def _error(hit: np.ndarray, prob: np.ndarray, repeats: bool, debias: bool) -> float:
    edges = between(np.unique(prob)) if repeats else equal_bins(prob, BINS)
    index = np.searchsorted(edges, prob)
    count = np.bincount(index, minlength=len(edges)).astype(np.float64)
    filled = np.maximum(count, 1)
    share = np.bincount(index, weights=hit, minlength=len(edges)) / filled
    square = (np.bincount(index, weights=prob, minlength=len(edges)) / filled - share) ** 2
    if debias:
        square = np.where(count < 2, 0.0, square - share * (1 - share) / np.maximum(count - 1, 1))
    return float(np.sqrt(max(count @ square / count.sum(), 0.0)))


def between(values: np.ndarray) -> np.ndarray:
    """Upper edges (K,) of bins with one of the sorted values (K,) each; the last is 1."""
    return np.append((values[1:] + values[:-1]) / 2, 1.0)


def equal_bins(prob: np.ndarray, bins: int) -> np.ndarray:
    """Upper edges (K,), K <= bins, of bins with nearly equal numbers of probabilities (B,); the last is 1."""
    parts = np.array_split(np.sort(prob), min(bins, prob.size))
    return np.unique([*((a[-1] + b[0]) / 2 for a, b in zip(parts, parts[1:], strict=False)), 1.0])
