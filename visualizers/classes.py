"""What a classifier takes for what: its confusion matrix, and images with captions and heat maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visualizers.canvas import INK, new_figure, save_figure
from visualizers.panels import as_pixels

MOST_NUMBERS = 20  # classes whose counts can still be read


def plot_confusion(counts: np.ndarray, path: Path | str, title: str = "") -> Path:
    """Counts (C, C) of true class (row) and predicted class (column); colour is the share of the row. PNG."""
    classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = classes <= MOST_NUMBERS
    inches = max(4.0, 0.46 * classes + 1.6) if few else 8.0
    figure, axes = new_figure(1.15 * inches, inches)
    axis = axes[0, 0]
    shown = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0) if few else ():
        colour = "white" if shares[row, column] > 0.5 else INK
        axis.text(column, row, f"{counts[row, column]:g}", ha="center", va="center", color=colour, fontsize=7)
    if few:
        axis.set(xticks=range(classes), yticks=range(classes))
    axis.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.colorbar(shown, ax=axis, label="share of the true class", shrink=0.8)
    return save_figure(figure, path)


def save_captioned(
    images: np.ndarray, captions: Sequence[str], path: Path | str, heat: np.ndarray | None = None, columns: int = 8
) -> Path:
    """Images (n, H, W, 1 or 3), each under its caption, as PNG; with heat (n, H, W) in [0, 1] its map stands below."""
    pixels = as_pixels(images)
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    layers = 1 if heat is None else 2
    columns = min(columns, len(pixels))
    rows = -(-len(pixels) // columns)
    figure, axes = new_figure(1.25 * columns, (1.25 * layers + 0.25) * rows, layers * rows, columns)
    for axis in axes.flat:
        axis.set_axis_off()
    for index, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
        row, column = divmod(index, columns)
        above = axes[layers * row, column]
        above.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        above.set_title(caption, fontsize=7, color=INK)
        if heat is not None:
            below = axes[layers * row + 1, column]
            below.imshow(heat[index], cmap="inferno", vmin=0, vmax=1, interpolation="nearest")
    return save_figure(figure, path)
