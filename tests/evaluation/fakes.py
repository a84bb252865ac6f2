"""A run without a pipeline or a model of ours: Gaussian data, and an objective that shifts the noise."""

from types import SimpleNamespace

import mlx.core as mx
import numpy as np

from runtime.op import Objective
from runtime.run import Run


class FakePipeline:
    """Standard normal rows, as many as `rows` says for each mode."""

    classes = 10

    def __init__(self, shape=(2,), rows=None, labels=()):
        self.shape, rows = shape, rows or {"train": 100_000, "eval": 1_000}
        self.sources = {mode: range(count) for mode, count in rows.items()}
        self.labels, self.drawn = np.array(labels, np.int32), []

    def draw(self, mode, count, rng):
        assert count <= len(self.sources[mode])
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
        return noise + mx.array(solver.shift)


def fake_run(pipeline=None, shift=0.0, conditions=(), folder=None):
    return Run({}, None, Shift(conditions), pipeline or FakePipeline(), SimpleNamespace(shift=mx.array(shift)), folder)
