"""Probabilities that are frequencies, learned from the predictions of an evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.errors import UsageError
from traces.metrics.calibration import equal_bins
from traces.metrics.metric import classes_of, has_classes, joined
from traces.trace import Trace
from training.data import Data, as_numpy, one_number

TINY = 1e-12


class PBMCalibrator(Trace):
    """Fits a platt-binner-marginal calibrator (Kumar et al., arXiv 1909.10155) to each evaluation.

    For every class a logistic curve, then the mean of its values in each of 10 bins of equal numbers. The calibrated
    probabilities (B, C) of the evaluation's rows are left for later traces as `output_name`, by default
    <pred_key>_calibrated. save_path: a JSON file for `Calibrator.load`, written at each evaluation, or where
    save_if_key (such as "since_best_accuracy") is 0. Raises UsageError for save_if_key without save_path.
    """

    def __init__(self, true_key: str, pred_key: str, output_name: str | None = None,
                 save_path: str | Path | None = None, save_if_key: str | None = None,
                 mode: str | Sequence[str] | None = "eval", ds_id: str | Sequence[str] | None = None):  # fmt: skip
        if save_if_key is not None and save_path is None:
            raise UsageError(f"save_if_key={save_if_key!r} needs a save_path, got None.")
        super().__init__((true_key, pred_key), output_name or f"{pred_key}_calibrated", mode, ds_id)
        self.true_key, self.pred_key, self.save_if_key = true_key, pred_key, save_if_key
        self.save_path = None if save_path is None else Path(save_path)
        self.gathered: list[tuple[np.ndarray, np.ndarray]] = []
        self.calibrator: Calibrator | None = None

    def on_epoch_begin(self, data: Data) -> None:
        """Forgets the evaluation before."""
        self.gathered = []

    def on_batch_end(self, data: Data) -> None:
        """Gathers labels and probabilities."""
        pred = as_numpy(data[self.pred_key])
        self.gathered.append((classes_of(as_numpy(data[self.true_key]), len(pred)), pred))

    def on_epoch_end(self, data: Data) -> None:
        """Fits, saves and writes."""
        true, pred = joined(self.gathered)
        self.calibrator = Calibrator.fitted(true, pred)
        if self.save_path is not None and (self.save_if_key is None or one_number(data, self.save_if_key) == 0):
            self.calibrator.save(self.save_path)
        data.write_without_log(self.outputs[0], self.calibrator(pred))


class Calibrator:
    """Maps probabilities (..., C), or (...) of class 1, to calibrated ones: a curve and a step function a class."""

    def __init__(self, curves: list[tuple[float, float]], edges: list[np.ndarray], values: list[np.ndarray]):
        self.curves, self.edges, self.values = curves, edges, values

    @classmethod
    def fitted(cls, true: np.ndarray, pred: np.ndarray, bins: int = 10) -> "Calibrator":
        """From labels (B,) and probabilities (B, C), or (B,) or (B, 1) of class 1."""
        columns = pred.T if has_classes(pred) else [pred.reshape(-1)]
        curves, every, values = [], [], []
        for number, column in enumerate(columns):
            hit = true == (number if len(columns) > 1 else 1)
            curves.append(logistic(_logit(column), hit))
            steady = _curve(column, *curves[-1])
            edges = equal_bins(steady, bins)
            index = np.searchsorted(edges, steady)
            count = np.bincount(index, minlength=len(edges))
            middle = (edges + np.append(0.0, edges[:-1])) / 2
            sums = np.bincount(index, weights=steady, minlength=len(edges))
            every.append(edges)
            values.append(np.where(count > 0, sums / np.maximum(count, 1), middle))
        return cls(curves, every, values)

    def __call__(self, pred: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of the same shape."""
        pred = np.asarray(pred)
        columns = np.moveaxis(pred, -1, 0) if len(self.curves) > 1 else [pred]
        if len(columns) != len(self.curves):
            raise UsageError(f"this calibrator is for {len(self.curves)} classes, got probabilities of {pred.shape}.")
        out = [
            values[np.searchsorted(edges, _curve(column, *curve)).clip(0, len(values) - 1)]
            for column, curve, edges, values in zip(columns, self.curves, self.edges, self.values, strict=True)
        ]
        return np.stack(out, -1) if len(self.curves) > 1 else out[0]

    def save(self, path: Path) -> None:
        """Writes a JSON file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lists = {"curves": self.curves, "edges": [e.tolist() for e in self.edges]}
        path.write_text(json.dumps({**lists, "values": [v.tolist() for v in self.values]}))

    @classmethod
    def load(cls, path: str | Path) -> "Calibrator":
        """Reads what `save` wrote."""
        kept = json.loads(Path(path).read_text())
        arrays = ([np.array(a) for a in kept[name]] for name in ("edges", "values"))
        return cls([tuple(curve) for curve in kept["curves"]], *arrays)


def logistic(x: np.ndarray, hit: np.ndarray, steps: int = 100) -> tuple[float, float]:
    """Slope and offset of the likeliest logistic curve for x (B,) and hits (B,), by Newton steps that are halved."""
    features = np.stack([x, np.ones_like(x)], 1)
    at = np.zeros(2)

    def loss(w: np.ndarray) -> float:
        z = features @ w
        return float(np.logaddexp(0, z).sum() - z @ hit) + 0.5e-10 * w[0] ** 2

    for _ in range(steps):
        p = 1 / (1 + np.exp(-features @ at))
        gradient = features.T @ (p - hit) + 1e-10 * np.array([at[0], 0])
        curvature = (features * (p * (1 - p))[:, None]).T @ features + 1e-10 * np.eye(2)
        move = np.linalg.solve(curvature, gradient)
        while loss(at - move) > loss(at) and abs(move).max() > 1e-12:
            move = move / 2
        at = at - move
        if abs(move).max() < 1e-9:
            break
    return float(at[0]), float(at[1])


def _logit(prob: np.ndarray) -> np.ndarray:
    prob = np.clip(np.asarray(prob, np.float64), TINY, 1 - TINY)
    return np.log(prob / (1 - prob))


def _curve(prob: np.ndarray, slope: float, offset: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(slope * _logit(prob) + offset)))
