"""Pictures of samples in hand, of their paths and of the field that made them, by the samples' shape."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError
from runtime.op import Objective
from runtime.run import Run
from solvers.dopri5 import Dopri5

POINTS, PARTICLES, IMAGES, MOVING = 10_000, 500, 64, 16  # how many are drawn, at rest and along their paths
FRAMES = 40  # intervals of an adaptive solver's path


def check(run: Run, picture: str | None, trajectories: str | None, field: str | None, label: int | None) -> None:
    """Raises UsageError for a picture that this run cannot give, before any sampling."""
    shape = tuple(run.pipeline.shape)
    plane, image = shape == (2,), len(shape) == 3 and shape[-1] in (1, 3)
    if (picture or trajectories) and not (plane or image):
        raise UsageError(f"pictures need samples of shape (2,) or (H, W, 1 or 3); this run's have {shape}.")
    if field and not plane:
        raise UsageError(f"field needs samples of shape (2,); this run's have {shape}.")
    if field and "label" in run.objective.conditions and label is None:
        raise UsageError("field needs label=...: this model has a field for every class.")
    if (field or trajectories) and type(run.objective).velocity is Objective.velocity:
        raise UsageError(f"{type(run.objective).__name__} has no velocity: field and trajectories can't be drawn.")


def data_points(run: Run, count: int) -> np.ndarray:
    """At most `count` rows of the training data."""
    count = min(count, len(run.pipeline.source("train")))
    return run.pipeline.draw("train", count, np.random.default_rng(0))["x"]


def draw_samples(run: Run, samples: np.ndarray, labels: dict[str, np.ndarray], path: str) -> Path:
    """Points beside data, or a grid of images, a row a class where there are several; PNG."""
    if samples.ndim == 2:
        from visualizers.points import scatter_beside

        shown, colours = samples[:POINTS], labels["label"][:POINTS] if labels else None
        return scatter_beside(shown, data_points(run, len(shown)), path, colours, f"Samples at step {run.step:,}")
    from visualizers.grids import save_class_grid, save_grid

    if labels and len(np.unique(labels["label"])) > 1:
        return save_class_grid(samples, labels["label"], path)
    return save_grid(samples[:IMAGES], path)


def draw_trajectories(run: Run, noise: np.ndarray, labels: dict[str, np.ndarray], path: str) -> Path:
    """The way from noise to samples, as GIF or PNG by the path's suffix."""
    plane = noise.ndim == 2
    count = PARTICLES if plane else MOVING
    given: dict[str, Any] = {name: mx.array(values[:count]) for name, values in labels.items()}
    # An adaptive solver chooses its own steps; the times asked for only say where to look.
    adaptive = isinstance(run.solver, Dopri5) and run.solver.steps == 1
    times = np.linspace(0, 1, FRAMES + 1) if adaptive else run.solver.times()
    field = run.objective.field(run.model, run.solver, **given)
    paths = np.array(run.solver.solve(field, mx.array(noise[:count]), times, path=True).astype(mx.float32))
    animated = path.endswith(".gif")
    if plane:
        from visualizers.trajectories import animate_paths, plot_paths

        return animate_paths(paths, times, path) if animated else plot_paths(paths, times, path)
    from visualizers.grids import save_denoising, save_strip

    return save_denoising(paths, path) if animated else save_strip(paths, path)


def draw_field(run: Run, label: int | None, path: str) -> Path:
    """The velocity over the plane at several times, of one class where there are classes; PNG."""
    from visualizers.field import quiver_field

    def velocity(x: np.ndarray, t: float) -> np.ndarray:
        given: dict[str, Any] = {} if label is None else {"label": mx.full((len(x),), label, dtype=mx.int32)}
        return np.array(run.objective.velocity(run.model, **given)(mx.array(x), mx.array(t)).astype(mx.float32))

    return quiver_field(velocity, data_points(run, POINTS), path)
