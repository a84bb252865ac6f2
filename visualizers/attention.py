"""Attention weights as pictures: a map for each head, or over the image whose patches the tokens are."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UsageError
from runtime.panels import Panel
from visualizers.canvas import INK, new_figure, save_figure
from visualizers.panels import as_pixels, save_panels


def visualize_attention(
    weights: Any,
    path: Path | str,
    tokens: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    image: Any = None,
    grid: tuple[int, int] | None = None,
    query: int | None = None,
) -> Path:
    """Draws the weights (heads, T, T') or (T, T') of one sample, a panel a head, rows the tokens that look.

    tokens, sources: labels of the T tokens and of the T' that they look at (None: those of `tokens`, where there are
    as many). image (H, W, C) or (H, W): the maps are laid over it instead, where `query` looks (None: the mean of all),
    brightest where a head looks most. grid: rows and columns of its patches (None: from the image's shape); they are
    the last of the T', class tokens and the like in front of them are left out. Raises UsageError for what doesn't fit.
    """
    maps = np.asarray(weights, np.float64)
    maps = maps[None] if maps.ndim == 2 else maps
    if maps.ndim != 3 or 0 in maps.shape:
        raise UsageError(f"attention weights must have shape (heads, T, T') or (T, T'), got {np.shape(weights)}.")
    if image is not None:
        return save_panels(overlays(maps, np.asarray(image), grid, query), path)
    count, sought = maps.shape[1:]
    sources = sources or (tokens if tokens is not None and len(tokens) == sought else None)
    for name, labels, length in (("tokens", tokens, count), ("sources", sources, sought)):
        if labels is not None and len(labels) != length:
            raise UsageError(f"{name} must be {length} labels, got {len(labels)}.")
    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    width, height = (max(2.6, 0.16 * length + 1.0) for length in (sought, count))
    figure, axes = new_figure(width * columns, height * rows, rows, columns)
    for head, axis in enumerate(axes.flat):
        if head >= len(maps):
            axis.set_axis_off()
            continue
        shown = axis.imshow(maps[head], cmap="viridis", vmin=0, vmax=maps[head].max() or 1, interpolation="nearest")
        axis.set_title(f"head {head}", color=INK, fontsize=8)
        axis.tick_params(labelsize=6, length=2)
        if tokens is not None:
            axis.set_yticks(range(count), [_plain(label) for label in tokens])
        if sources is not None:
            axis.set_xticks(range(sought), [_plain(label) for label in sources], rotation=90)
        figure.colorbar(shown, ax=axis, fraction=0.046).ax.tick_params(labelsize=6)
    return save_figure(figure, path)


def _plain(label: str) -> str:
    """A label without matplotlib's formulas, a space as a mark."""
    return label.replace("$", r"\$").replace(" ", "␣").replace("\n", "↵")


def overlays(maps: np.ndarray, image: np.ndarray, grid: tuple[int, int] | None, query: int | None) -> list[Panel]:
    """The image, and for each head the image under the map (H, W) in [0, 1] of what a query (or their mean) looks at.

    maps (heads, T, T'), image (H, W, C) or (H, W); a head's title tells the weight that is 1 in its map.
    """
    if image.ndim not in (2, 3):
        raise UsageError(f"image must have shape (H, W, C) or (H, W), got {image.shape}.")
    if query is not None and not -maps.shape[1] <= query < maps.shape[1]:
        raise UsageError(f"query must be a token from 0 to {maps.shape[1] - 1}, got {query}.")
    pixels = as_pixels(image if image.ndim == 3 else image[..., None])[None]
    rows, columns = grid or patches_of(maps.shape[2], image.shape[:2])
    if rows * columns > maps.shape[2] or rows < 1 or columns < 1:
        raise UsageError(f"grid must have at most {maps.shape[2]} patches, got {rows} x {columns}.")
    looked = maps.mean(1) if query is None else maps[:, query]
    panels = [Panel("image", images=pixels)]
    height, width = image.shape[:2]
    high, wide = np.arange(height) * rows // height, np.arange(width) * columns // width  # a pixel's patch
    for head, row in enumerate(looked[:, maps.shape[2] - rows * columns :]):
        top = row.max()
        heat = (row / (top or 1)).reshape(rows, columns)[high][:, wide]
        panels.append(Panel(f"head {head}, top {top:.2g}", images=pixels, heat=heat[None]))
    return panels


def patches_of(count: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of square patches over an image of `size`, as many as `count` tokens allow."""
    height, width = size
    unit = math.gcd(height, width)
    edges = [edge for edge in range(1, unit + 1) if unit % edge == 0 and (height // edge) * (width // edge) <= count]
    if not edges or count - (height // edges[0]) * (width // edges[0]) > count // 2:
        raise UsageError(f"{count} tokens are no grid of square patches of an image of {height} x {width}; give grid=.")
    return height // edges[0], width // edges[0]
