"""A run in hand: its config, model, data and how to sample; what evaluators, scripts and notebooks receive."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

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

        conditions: one value per sample, arrays of length `count`.
        """
        rng = np.random.default_rng(seed)
        noise = self.pipeline.noise(count, rng)
        parts = []
        for start in range(0, count, batch):
            rows = slice(start, min(start + batch, count))
            given = {name: mx.array(np.asarray(values)[rows]) for name, values in conditions.items()}
            out = self.objective.sample(self.model, mx.array(noise[rows]), solver or self.solver, **given)
            parts.append(np.array(out.astype(mx.float32)))
        return np.concatenate(parts)
