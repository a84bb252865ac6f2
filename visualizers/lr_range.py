"""The picture of a learning-rate range test."""

from pathlib import Path
from typing import Any

import numpy as np

from visualizers.canvas import DATA, INK, SAMPLES, new_figure, save_figure


def plot_lr_range(rates: np.ndarray, losses: np.ndarray, smooth: np.ndarray, found: Any, path: Path | str) -> Path:
    """Losses (N,) and smoothed losses (N,) over rates (N,), with the suggestion (or None) marked, as PNG.

    found: has `rate`, `steepest` and `lowest`. The axis ends at the height where the smoothed loss began.
    """
    figure, axes = new_figure(6.4, 3.8)
    axis = axes[0, 0]
    axis.plot(rates, losses, ".", color=DATA, markersize=3, label="loss")
    axis.plot(rates, smooth, color=SAMPLES, linewidth=1.6, label="smoothed")
    if found is not None:
        axis.axvline(found.rate, color="#c0392b", linewidth=1.2, label=f"suggested {found.rate:.2g}")
        for name, rate in (("steepest", found.steepest), ("lowest", found.lowest)):
            axis.plot([rate], np.interp([rate], rates, smooth), "o", color=INK, markersize=4)
            axis.annotate(f"{name} {rate:.2g}", (rate, float(np.interp(rate, rates, smooth))), (4, 6),
                          textcoords="offset points", fontsize=8, color=INK)  # fmt: skip
    low, first = float(smooth.min()), float(smooth[0])
    room = max(first - low, 1e-12)
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(low - 0.1 * room, first + 0.6 * room))
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left")
    return save_figure(figure, path)
