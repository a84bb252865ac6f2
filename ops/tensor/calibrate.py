"""Predictions made into frequencies by what PBMCalibrator has learned."""

import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np

from ops.tensor.each import Each, Names, floating
from runtime.errors import UsageError

TINY = 1e-6  # keeps logits finite in float32


class Calibrate(Each):
    """Calibrated probabilities (B, C), or (B,) or (B, 1) of one class, from a network's own.

    calibration_fn: a function of arrays, or the path of the JSON file that PBMCalibrator writes (save_path). The file
    is read when the op first runs, so that it need not exist before; a later change of it isn't seen.
    """

    def __init__(self, inputs: Names, outputs: Names, calibration_fn: Callable[[mx.array], mx.array] | str | Path,
                 mode: Names = ("test", "infer"), ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.calibration_fn = calibration_fn

    def one(self, x: mx.array) -> mx.array:
        """Of x's shape; UsageError for a file that isn't there or is for another number of classes."""
        if isinstance(self.calibration_fn, str | Path):
            self.calibration_fn = learned(Path(self.calibration_fn))
        return self.calibration_fn(x)


def learned(path: Path) -> Callable[[mx.array], mx.array]:
    """PBMCalibrator's file as a function: for each class a logistic curve of the logit, then the value of its bin."""
    if not path.is_file():
        raise UsageError(f"Calibrate finds no file {path}; PBMCalibrator(save_path=...) writes it.")
    kept = json.loads(path.read_text())
    slope, offset = np.array(kept["curves"], np.float32).T
    edges, values = kept["edges"], [np.array(v, np.float32) for v in kept["values"]]

    def calibrated(x: mx.array) -> mx.array:
        if len(values) > 1 and x.shape[-1] != len(values):
            raise UsageError(f"{path} calibrates {len(values)} classes, got probabilities of shape {x.shape}.")
        columns = floating(x).reshape(-1, len(values))
        p = mx.clip(columns, TINY, 1 - TINY)
        steady = mx.sigmoid(mx.array(slope) * (mx.log(p) - mx.log1p(-p)) + mx.array(offset))
        found = []
        for i, value in enumerate(values):
            bins = (steady[:, i : i + 1] > mx.array(np.array(edges[i], np.float32))).sum(axis=1)
            found.append(mx.take(mx.array(value), mx.minimum(bins, len(value) - 1)))
        return mx.stack(found, axis=1).reshape(x.shape)

    return calibrated
