"""Several samplers side by side from the same noise, jumps along an average velocity, and samples beside neighbours."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from runtime.errors import UsageError
from visualizers.canvas import DATA, INK, SAMPLES, new_figure, save_figure, write
from visualizers.grids import GAP, PAPER, tile, zoom_for
from visualizers.points import check_plane, frame, limits, scatter


def compare_points(samples: Mapping[str, np.ndarray], data: np.ndarray, path: Path | str) -> Path:
    """A panel for the data (m, 2) and one for each sampler's points (n, 2), titled by its name, of one range; PNG."""
    panels = {"Data": check_plane("data", data)}
    panels |= {name: check_plane(name, points) for name, points in samples.items()}
    figure, axes = new_figure(3.4 * len(panels), 4, 1, len(panels))
    box = limits(data)
    for number, (axis, (title, points)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        scatter(axis, points, SAMPLES if number else DATA, 3)
        frame(axis, box, title)
        axis.label_outer(remove_inner_ticks=True)
    return save_figure(figure, path)


def compare_images(samples: Mapping[str, np.ndarray], path: Path | str, columns: int = 8) -> Path:
    """A grid for each sampler's images (n, H, W, C), titled by its name; the same place is the same noise. PNG."""
    lengths = {name: len(images) for name, images in samples.items()}
    if len(set(lengths.values())) != 1:
        raise UsageError(f"a comparison needs equally many images of each sampler, got {lengths}.")
    pages = {
        name: tile(images, min(columns, len(images)), zoom_for(*images.shape[1:3])) for name, images in samples.items()
    }
    height, width, _ = next(iter(pages.values())).shape
    inches = 4.2
    figure, axes = new_figure(inches * len(pages), inches * height / width + 0.6, 1, len(pages))
    for axis, (title, page) in zip(axes[0], pages.items(), strict=True):
        axis.imshow(page, interpolation="nearest")
        axis.set_title(title, color=INK)
        axis.set_axis_off()
    return save_figure(figure, path, dpi=max(120, round(width / inches)))


def plot_jumps(
    paths: np.ndarray, ends: np.ndarray, data: np.ndarray, path: Path | str, shown: int = 60, title: str = ""
) -> Path:
    """How an average velocity cuts corners: the ODE's path and the jumps' ends from the same noise, as PNG.

    paths (T, n, 2): states of the ODE. ends (S, n, 2): x + t u(x, 0, t) for rising t from the same start; for an exact
    u both curves are one. data (m, 2) lies behind. Dots mark where either arrives; the title tells the gap.
    """
    from matplotlib.collections import LineCollection

    paths, ends = np.asarray(paths), np.asarray(ends)
    if paths.ndim != 3 or ends.ndim != 3 or paths.shape[1:] != ends.shape[1:] or paths.shape[2] != 2:
        raise UsageError(f"paths and ends must be (T, n, 2) and (S, n, 2), got shapes {paths.shape} and {ends.shape}.")
    figure, axes = new_figure(6.4, 6.4)
    axis = axes[0, 0]
    scatter(axis, check_plane("data", data), "#d9d9d9", 2, zorder=1)
    gap = np.linalg.norm(paths[-1] - ends[-1], axis=1)
    named = ((paths, DATA, "path of the ODE"), (ends, SAMPLES, "average velocity: x + t u(x, 0, t)"))
    for states, colour, label in named:
        lines = list(states[:, :shown].swapaxes(0, 1))
        axis.add_collection(LineCollection(lines, colors=colour, linewidths=0.9, alpha=0.7, zorder=2))
        scatter(axis, states[-1][:shown], colour, 12, label=label, zorder=3)
    frame(axis, limits(paths.reshape(-1, 2), data), f"{title}\nmedian gap at t = 1: {np.median(gap):.3g}".strip())
    figure.legend(loc="outside lower center", ncols=2, markerscale=2, frameon=False)
    return save_figure(figure, path)


def save_neighbours(samples: np.ndarray, neighbours: np.ndarray, path: Path | str) -> Path:
    """A row for each of the samples (n, H, W, C): itself, then its neighbours (n, k, H, W, C), nearest first; PNG."""
    if len(samples) != len(neighbours):
        raise UsageError(f"each sample needs its neighbours, got {len(samples)} samples and {len(neighbours)} rows.")
    zoom = zoom_for(*samples.shape[1:3])
    left = tile(samples, 1, zoom)
    right = tile(neighbours.reshape(-1, *samples.shape[1:]), neighbours.shape[1], zoom)
    page = np.concatenate([left, np.full((len(left), 4 * GAP, 3), PAPER, np.uint8), right], axis=1)

    def save(temporary: Path) -> None:
        from PIL import Image

        Image.fromarray(page).save(temporary)

    return write(path, save)
