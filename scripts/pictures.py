"""Pictures of samples in hand, of their paths and of the field that made them, by the samples' shape."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError
from runtime.op import Objective
from runtime.run import Run
from solvers.average import Average
from solvers.dopri5 import Dopri5
from solvers.euler import Euler

POINTS, PARTICLES, IMAGES, MOVING = 10_000, 500, 64, 16  # how many are drawn, at rest and along their paths
LOOKED_UP, NEIGHBOURS = 10, 8  # samples whose training neighbours are drawn, and how many of each
FRAMES = 40  # intervals of an adaptive solver's path


def check(run: Run, picture: str | None, trajectories: str | None, field: str | None, label: Any) -> None:
    """Raises UsageError for a picture that this run cannot give, before any sampling."""
    shape = tuple(run.pipeline.shape)
    plane, image = shape == (2,), len(shape) == 3 and shape[-1] in (1, 3)
    if (picture or trajectories) and not (plane or image):
        raise UsageError(f"pictures need samples of shape (2,) or (H, W, 1 or 3); this run's have {shape}.")
    if field and not plane:
        raise UsageError(f"field needs samples of shape (2,); this run's have {shape}.")
    if field and "label" in run.objective.conditions and not isinstance(label, int):
        raise UsageError("field needs label=...: this model has a field for every class.")
    if (field or trajectories) and type(run.objective).velocity is Objective.velocity:
        raise UsageError(f"{type(run.objective).__name__} has no velocity: field and trajectories can't be drawn.")


def check_neighbours(run: Run) -> None:
    """Raises UsageError where neighbours can't be drawn."""
    shape = tuple(run.pipeline.shape)
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise UsageError(f"neighbours needs images (H, W, 1 or 3); this run's samples have {shape}.")


def has_average(run: Run) -> bool:
    """Whether the run's objective trains an average velocity."""
    return type(run.objective).average_velocity is not Objective.average_velocity


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


def compared(run: Run, noise: np.ndarray, labels: dict[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    """Samples in one step, in `steps` and by the adaptive ODE solver from the same noise, by a title each.

    Steps are jumps where the objective trains an average velocity, else Euler's.
    """
    kind = Average if has_average(run) else Euler
    solvers = {"1 step": kind(1), f"{steps} steps": kind(steps), "ODE, dopri5": Dopri5(rtol=1e-4, atol=1e-4)}
    given: dict[str, Any] = {name: mx.array(values) for name, values in labels.items()}
    samples = {}
    for name, solver in solvers.items():
        out = run.objective.sample(run.model, mx.array(noise), solver, **given).astype(mx.float32)
        samples[f"{name}, NFE {solver.evaluations}"] = np.array(out)
    return samples


def draw_comparison(run: Run, noise: np.ndarray, labels: dict[str, np.ndarray], path: str, steps: int = 4) -> Path:
    """One step, `steps` steps and the ODE of the same network side by side; PNG."""
    from visualizers.comparison import compare_images, compare_points

    count = POINTS if noise.ndim == 2 else IMAGES
    samples = compared(run, noise[:count], {name: values[:count] for name, values in labels.items()}, steps)
    if noise.ndim == 2:
        return compare_points(samples, data_points(run, len(noise)), path)
    return compare_images(samples, path, run.pipeline.classes if labels and run.pipeline.classes <= 12 else 8)


def draw_jumps(run: Run, noise: np.ndarray, labels: dict[str, np.ndarray], path: str) -> Path:
    """Where jumps from the noise to each time land, over the ODE's path; PNG."""
    from visualizers.comparison import plot_jumps

    noise = noise[:PARTICLES]
    given: dict[str, Any] = {name: mx.array(values[:PARTICLES]) for name, values in labels.items()}
    x, times = mx.array(noise), np.linspace(0, 1, FRAMES + 1)
    paths = Dopri5(rtol=1e-4, atol=1e-4).solve(run.objective.velocity(run.model, **given), x, times, path=True)
    average = run.objective.average_velocity(run.model, **given)
    ends = [x, *(x + float(t) * average(x, mx.array(0.0), mx.array(float(t))) for t in times[1:])]
    ode, jumps = (np.array(states.astype(mx.float32)) for states in (paths, mx.stack(ends)))
    return plot_jumps(ode, jumps, data_points(run, POINTS // 2), path, title=f"Step {run.step:,}")


def draw_neighbours(run: Run, samples: np.ndarray, path: str) -> Path:
    """The first samples beside the training images nearest to them in pixels; PNG."""
    from evaluation.neighbours import nearest
    from visualizers.comparison import save_neighbours

    samples = samples[:LOOKED_UP]
    train = data_points(run, len(run.pipeline.source("train")))
    index, _ = nearest(samples.reshape(len(samples), -1), train.reshape(len(train), -1), min(NEIGHBOURS, len(train)))
    return save_neighbours(samples, train[index], path)


def draw_trajectories(
    run: Run,
    noise: np.ndarray,
    labels: dict[str, np.ndarray],
    path: str,
    jumps: list[float] | None = None,
    film: bool | None = None,
) -> Path:
    """The way from noise to samples, through the times `jumps` or the solver's own; film: moving, else one picture.

    None: moving where the suffix is .gif or .mp4. Of a film a .png shows frames side by side.
    """
    film = path.endswith((".gif", ".mp4")) if film is None else film
    plane = noise.ndim == 2
    count = PARTICLES if plane else MOVING
    given: dict[str, Any] = {name: mx.array(values[:count]) for name, values in labels.items()}
    # An adaptive solver chooses its own steps; the times asked for only say where to look.
    adaptive = isinstance(run.solver, Dopri5) and run.solver.steps == 1
    times = np.array(jumps) if jumps else np.linspace(0, 1, FRAMES + 1) if adaptive else run.solver.times()
    field = run.objective.field(run.model, run.solver, **given)
    paths = np.array(run.solver.solve(field, mx.array(noise[:count]), times, path=True).astype(mx.float32))
    if plane:
        from visualizers.trajectories import animate_paths, plot_paths

        return animate_paths(paths, times, path) if film else plot_paths(paths, times, path)
    from visualizers.grids import save_denoising, save_strip

    return save_denoising(paths, path) if film else save_strip(paths, path)


def draw_field(run: Run, label: Any, path: str) -> Path:
    """The velocity over the plane at several times, of one class where there are classes; PNG."""
    from visualizers.field import quiver_field

    def velocity(x: np.ndarray, t: float) -> np.ndarray:
        given: dict[str, Any] = {} if label is None else {"label": mx.full((len(x),), label, dtype=mx.int32)}
        return np.array(run.objective.velocity(run.model, **given)(mx.array(x), mx.array(t)).astype(mx.float32))

    return quiver_field(velocity, data_points(run, POINTS), path)
