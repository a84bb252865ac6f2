"""A run without a pipeline or a model of ours: Gaussian data, and an objective that shifts the noise."""

from types import SimpleNamespace

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError
from runtime.op import Objective
from runtime.run import Run


class FakePipeline:
    """Standard normal rows; `rows` says how many each mode has."""

    def __init__(self, shape=(2,), rows=None, labels=()):
        self.shape, self.rows, self.labels = (
            shape,
            rows or {"train": 100_000, "eval": 1_000},
            np.array(labels, np.int32),
        )
        self.drawn = []

    def draw(self, mode, count, rng):
        if count > self.rows[mode]:
            raise UsageError(f"{count} samples asked of {mode}")
        self.drawn.append((mode, count))
        batch = {"x": rng.standard_normal((count, *self.shape)).astype(np.float32)}
        if len(self.labels):
            batch["label"] = rng.choice(self.labels, count)
        return batch

    def noise(self, count, rng):
        return rng.standard_normal((count, *self.shape)).astype(np.float32)

    def fingerprint(self):
        return f"fake{self.shape}"


class Shift(Objective):
    """Samples are the noise plus the solver's shift; labels that arrive are noted."""

    def __init__(self, conditions=()):
        self.conditions, self.labels = conditions, []

    def sample(self, model, noise, solver, **conditions):
        self.labels += [np.array(conditions[name]) for name in self.conditions]
        return noise + solver.shift


def fake_run(pipeline=None, shift=0.0, conditions=(), folder=None):
    return Run({}, None, Shift(conditions), pipeline or FakePipeline(), SimpleNamespace(shift=mx.array(shift)), folder)
