"""A run in hand: its config, model, data and how to sample; what evaluators, scripts and notebooks receive."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from runtime.errors import UsageError
from runtime.op import Objective


@dataclass
class Run:
    """Everything rebuilt from one config.

    models carry the weights to judge (the EMA where there is one); model is the first. pipeline gives batches and,
    through `pipeline.noise(n, rng)`, the source distribution. folder: where pictures and tables of this run go.
    """

    config: Any
    model: nn.Module
    objective: Objective
    pipeline: Any
    solver: Any = None
    folder: Path | None = None
    step: int = 0
    info: dict[str, Any] = field(default_factory=dict)
    models: dict[str, nn.Module] = field(default_factory=dict)

    def samples(self, count: int, seed: int = 0, batch: int = 10_000, solver=None, **conditions) -> np.ndarray:
        """`count` samples as float32 (count, ...), from the source distribution drawn with `seed`.

        conditions: those of the objective by name, arrays of length `count` or one value for all. A label may be left
        out (or be -1) where training has dropped some. UsageError for others.
        """
        if not isinstance(count, int) or not isinstance(batch, int) or count < 1 or batch < 1:
            raise UsageError(f"count and batch must be whole numbers from 1 on, got {count!r} and {batch!r}.")
        conditions = {name: self._condition(name, values, count) for name, values in conditions.items()}
        if "label" in {*self.objective.conditions} - {*conditions} and not getattr(self.objective, "label_dropout", 0):
            raise UsageError(f"this model was trained with labels and never without: give label=, 0 to "
                             f"{self.pipeline.classes - 1} for each sample.")  # fmt: skip
        rng = np.random.default_rng(seed)
        noise = self.pipeline.noise(count, rng)
        parts = []
        for start in range(0, count, batch):
            rows = slice(start, min(start + batch, count))
            given = {name: mx.array(np.asarray(values)[rows]) for name, values in conditions.items()}
            out = self.objective.sample(self.model, mx.array(noise[rows]), solver or self.solver, **given)
            parts.append(np.array(out.astype(mx.float32)))
        return np.concatenate(parts)

    def _condition(self, name: str, values: Any, count: int) -> np.ndarray:
        """A condition's values, one for each of `count` samples."""
        if name not in self.objective.conditions:
            known = ", ".join(self.objective.conditions) or "none"
            raise UsageError(f"this model takes no condition {name!r}; those it takes: {known}.")
        array = np.asarray(values)
        array = np.full(count, array) if array.ndim == 0 else array
        if len(array) != count:
            raise UsageError(f"{name} must have one value for each of {count} samples, got shape {array.shape}.")
        if name == "label" and ((array < -1) | (array >= self.pipeline.classes)).any():
            raise UsageError(f"label must lie in 0..{self.pipeline.classes - 1} (or be -1: no class), got "
                             f"{array.min()}..{array.max()}.")  # fmt: skip
        return array
