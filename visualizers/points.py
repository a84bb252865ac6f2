"""Scatter plots of two-dimensional samples beside the data."""

from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UsageError
from visualizers.canvas import DATA, SAMPLES, new_figure, save_figure


def limits(*sets: np.ndarray, margin: float = 0.06) -> tuple[tuple[float, float], tuple[float, float]]:
    """A square around sets of points (n, 2), as x and y range: their .1% to 99.9% quantiles and some margin.

    Quantiles, since a single sample far off would shrink all the rest to a dot.
    """
    low, high = np.nanquantile(np.concatenate([np.asarray(points) for points in sets]), [0.001, 0.999], axis=0)
    centre, half = (low + high) / 2, (0.5 + margin) * max(*(high - low), 1e-6)
    return (centre[0] - half, centre[0] + half), (centre[1] - half, centre[1] + half)


def frame(axes: Any, box: tuple[tuple[float, float], tuple[float, float]], title: str = "") -> None:
    """Labels, range and equal scale for a plot of the plane."""
    axes.set(xlim=box[0], ylim=box[1], aspect="equal", title=title, xlabel="$x_1$", ylabel="$x_2$")


def scatter(axes: Any, points: np.ndarray, colour: Any = SAMPLES, size: float = 4, **options: Any) -> Any:
    """Draws points (n, 2) as dots without edges; colour is a name or one value (n,) each."""
    return axes.scatter(points[:, 0], points[:, 1], s=size, c=colour, linewidths=0, alpha=0.6, **options)


def check_plane(name: str, points: np.ndarray) -> np.ndarray:
    """The points as an array; raises UsageError unless they are (n, 2)."""
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 2:
        raise UsageError(f"{name} must be points of the plane (n, 2), got shape {points.shape}.")
    return points


def scatter_beside(
    samples: np.ndarray, data: np.ndarray, path: Path | str, labels: np.ndarray | None = None, title: str = "Samples"
) -> Path:
    """Data and samples (n, 2) in two panels of the same range, as PNG; labels (n,) colour the samples."""
    samples, data = check_plane("samples", samples), check_plane("data", data)
    figure, axes = new_figure(9, 5.2, 1, 2)
    box = limits(data)
    scatter(axes[0, 0], data, DATA)
    frame(axes[0, 0], box, f"Data\n{len(data):,} points")
    few = labels is not None and len(np.unique(labels)) <= 10
    scatter(axes[0, 1], samples, SAMPLES if labels is None else labels, cmap="tab10" if few else None)
    inside = [(side[0] <= column) & (column <= side[1]) for side, column in zip(box, samples.T, strict=True)]
    outside = 1 - np.mean(np.all(inside, axis=0))  # NaN is outside too
    frame(axes[0, 1], box, f"{title}\n{len(samples):,} points" + (f", {outside:.1%} outside" if outside else ""))
    return save_figure(figure, path)
