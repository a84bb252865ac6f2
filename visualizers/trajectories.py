"""Paths of particles through a flow: one picture, and an animation."""

from pathlib import Path

import numpy as np

from runtime.errors import UsageError
from visualizers.canvas import DATA, INK, SAMPLES, figure_image, new_figure, save_figure, save_film
from visualizers.points import check_plane, frame, limits, scatter


def _check(paths: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    paths, times = np.asarray(paths), np.asarray(times)
    if paths.ndim != 3 or paths.shape[2] != 2 or len(paths) != len(times):
        raise UsageError(f"paths must be (T, n, 2) with T times, got shape {paths.shape} and {len(times)} times.")
    return paths, times


def plot_paths(paths: np.ndarray, times: np.ndarray, path: Path | str, shown: int = 200) -> Path:
    """Paths (T, n, 2) at times (T,) as PNG: noise in gray, samples in blue, lines for the first `shown`."""
    from matplotlib.collections import LineCollection

    paths, times = _check(paths, times)
    figure, axes = new_figure(6, 5.6)
    axis = axes[0, 0]
    axis.add_collection(LineCollection(list(paths[:, :shown].swapaxes(0, 1)), colors=INK, linewidths=0.5, alpha=0.35))
    scatter(axis, paths[0], DATA, 6, label=f"t = {times[0]:.2g}", zorder=3)
    scatter(axis, paths[-1], SAMPLES, 6, label=f"t = {times[-1]:.2g}", zorder=4)
    frame(axis, limits(paths.reshape(-1, 2)), f"Paths of {min(shown, paths.shape[1])} particles")
    figure.legend(loc="outside lower center", ncols=2, markerscale=3, frameon=False)
    return save_figure(figure, path)


def animate_paths(
    paths: np.ndarray, times: np.ndarray, path: Path | str, data: np.ndarray | None = None, frames: int = 40
) -> Path:
    """The particles (T, n, 2) moving through times (T,), as a film of at most `frames` frames; data (m, 2) behind."""
    paths, times = _check(paths, times)
    figure, axes = new_figure(4.4, 4.6)
    axis = axes[0, 0]
    behind = [] if data is None else [check_plane("data", data)]
    for points in behind:
        scatter(axis, points, DATA, 3, zorder=1)
    dots = scatter(axis, paths[0], SAMPLES, 5, zorder=2)
    frame(axis, limits(paths.reshape(-1, 2), *behind), "t = 0.00")
    images = []
    for index in np.unique(np.linspace(0, len(paths) - 1, min(frames, len(paths))).round().astype(int)):
        dots.set_offsets(paths[index])
        axis.set_title(f"t = {times[index]:.2f}")
        images.append(figure_image(figure))
    return save_film(images, path)
