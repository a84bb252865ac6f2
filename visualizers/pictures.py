"""Pictures of a run's samples, chosen by the samples' shape; what configs and traces name."""

from pathlib import Path
from typing import Any

import numpy as np

from runtime.run import Run
from visualizers.grids import save_class_grid, save_grid
from visualizers.points import scatter_beside


class SamplePicture:
    """Draws samples, where the objective has any, and writes their picture: points beside data, or a grid of images.

    points, images: how many to sample. A model that takes labels gets equally many of every class, and its images
    are laid out by class. seed: of the noise, so that pictures of different steps show the same draws.
    """

    def __init__(self, points: int = 4_000, images: int = 64, seed: int = 0):
        self.points, self.images, self.seed = points, images, seed

    def __call__(self, run: Run, folder: Path | str, name: str = "samples") -> list[Path]:
        """The files written, `folder`/`name`.png or none."""
        shape, path = tuple(run.pipeline.shape), Path(folder) / f"{name}.png"
        if not run.objective.generates:
            return []
        if shape == (2,):
            return [self._scatter(run, path)]
        if len(shape) == 3 and shape[-1] in (1, 3):
            return [self._grid(run, path)]
        return []

    def _scatter(self, run: Run, path: Path) -> Path:
        labels = self._labels(run, self.points)
        samples = run.samples(self.points, seed=self.seed, **labels)
        available = min(self.points, len(run.pipeline.sources["train"]))
        data = run.pipeline.draw("train", available, np.random.default_rng(self.seed))["x"]
        return scatter_beside(samples, data, path, labels.get("label"), f"Samples at step {run.step:,}")

    def _grid(self, run: Run, path: Path) -> Path:
        labels = self._labels(run, self.images)
        samples = run.samples(self.images, seed=self.seed, batch=256, **labels)
        if not labels:
            return save_grid(samples, path)
        return save_class_grid(samples, labels["label"], path, per_class=-(-self.images // run.pipeline.classes))

    @staticmethod
    def _labels(run: Run, count: int) -> dict[str, Any]:
        if "label" not in run.objective.conditions:
            return {}
        return {"label": (np.arange(count) % run.pipeline.classes).astype(np.int32)}
