"""The velocity field of a flow over the plane, at several times."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from visualizers.canvas import DATA, new_figure, save_figure
from visualizers.points import check_plane, frame, limits, scatter


def quiver_field(
    velocity: Callable[[np.ndarray, float], np.ndarray],
    data: np.ndarray,
    path: Path | str,
    times: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    cells: int = 17,
) -> Path:
    """Arrows of velocity(x (n, 2), t) -> (n, 2) on a grid around the data (m, 2), a panel a time, as PNG.

    Arrows share one scale over the panels; colour is speed.
    """
    data = check_plane("data", data)
    box = limits(data, margin=0.15)
    grid = np.stack(np.meshgrid(*(np.linspace(*side, cells) for side in box)), -1).reshape(-1, 2).astype(np.float32)
    fields = [np.asarray(velocity(grid, float(t))) for t in times]
    speeds = [np.linalg.norm(field, axis=1) for field in fields]
    fastest = max(float(np.quantile(np.concatenate(speeds), 0.99)), 1e-6)
    cell = (box[0][1] - box[0][0]) / (cells - 1)
    figure, axes = new_figure(3.1 * len(times) + 0.8, 3.8, 1, len(times))
    for axis, t, field, speed in zip(axes[0], times, fields, speeds, strict=True):
        scatter(axis, data[:2_000], DATA, 1.5, zorder=1)
        arrows = axis.quiver(
            *grid.T, *field.T, speed, angles="xy", scale_units="xy", scale=fastest / (1.6 * cell), cmap="viridis",
            clim=(0, fastest), width=0.006, pivot="tail", zorder=2,
        )  # fmt: skip
        frame(axis, box, f"t = {t:.2g}")
        axis.label_outer(remove_inner_ticks=True)
    figure.colorbar(arrows, ax=axes, label="speed", shrink=0.85, pad=0.01)
    return save_figure(figure, path)
