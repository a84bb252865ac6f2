"""Panels (images, masks, boxes, keypoints, heat maps, text) as grids and charts as pictures; what traces name."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UsageError
from runtime.panels import Chart, Panel
from visualizers.canvas import INK, new_figure, save_figure

CELL = 1.6  # inches of one sample


def as_pixels(images: np.ndarray) -> np.ndarray:
    """Images (..., H, W, C) as uint8: floats in [0, 1] are x 255, in [-1, 1] (x + 1) 127.5, all others stretched."""
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images
    images = np.nan_to_num(images.astype(np.float32))
    low, high = (images.min(), images.max()) if images.size else (0.0, 1.0)
    if images.size and (low < -1 or high > 1):
        images = (images - low) / max(high - low, 1e-12)
    elif low < 0:
        images = (images + 1) / 2
    return np.floor(images * 255 + 0.5).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """One image (H, W), (H, W, 1) or (H, W, 3) as the bytes of a PNG."""
    from PIL import Image

    pixels, stream = as_pixels(image), io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 and pixels.ndim == 3 else pixels).save(stream, "PNG")
    return stream.getvalue()


def save_display(display: Any, path: Path | str) -> Path:
    """Writes a Chart, a Panel, a list of panels (columns) or one image (H, W, C) as a picture."""
    if isinstance(display, Chart):
        return save_chart(display, path)
    if isinstance(display, Panel) or (isinstance(display, list | tuple) and isinstance(display[0], Panel)):
        return save_panels([display] if isinstance(display, Panel) else display, path)
    if np.ndim(display) in (2, 3):
        return save_panels([Panel(images=np.asarray(display)[None])], path)
    raise UsageError(f"only charts, panels and images (H, W, C) can be drawn, got {type(display).__name__}.")


def save_panels(panels: Sequence[Panel], path: Path | str) -> Path:
    """A grid with a column a panel and a row a sample, as the format of the path's suffix."""
    rows = max(len(panel) for panel in panels)
    figure, axes = new_figure(CELL * len(panels) + 0.2, CELL * rows + 0.4, rows, len(panels))
    for column, panel in enumerate(panels):
        axes[0, column].set_title(panel.title, color=INK, fontsize=8)
        images = None if panel.images is None else as_pixels(panel.images)
        for row in range(rows):
            axis = axes[row, column]
            axis.set_axis_off()
            if row < len(panel):
                _draw(axis, panel, images, row)
    return save_figure(figure, path)


def _draw(axis: Any, panel: Panel, images: np.ndarray | None, row: int) -> None:
    one, many = panel.colours
    if images is not None:
        image = images[row][..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images[row]
        axis.imshow(image, cmap=one, interpolation="nearest", vmin=0, vmax=255)
    if panel.heat is not None:
        axis.imshow(panel.heat[row], cmap=many, alpha=0.5 if images is not None else 1.0, vmin=0, vmax=1)
    if panel.masks is not None:
        _draw_masks(axis, panel, np.asarray(panel.masks[row]), images is not None)
    for box in () if panel.boxes is None else panel.boxes[row]:
        _draw_box(axis, box)
    if panel.keypoints is not None:
        points = np.asarray(panel.keypoints[row], np.float32)
        axis.scatter(points[:, 0], points[:, 1], s=8, c=np.arange(len(points)), cmap="tab10", vmin=0, vmax=10)
        for point, label in zip(points, panel.keypoint_labels or (), strict=False):
            axis.annotate(label, point, fontsize=5, color=INK)
    if panel.text is not None:
        axis.text(0.5, 0.5, str(panel.text[row]), ha="center", va="center", color=INK, transform=axis.transAxes)


def _draw_masks(axis: Any, panel: Panel, masks: np.ndarray, over: bool) -> None:
    masks = masks[..., None] if masks.ndim == 2 else masks
    if panel.threshold is not None:
        masks = (masks > panel.threshold).astype(np.float32)
    if masks.shape[-1] == 1:
        axis.imshow(masks[..., 0], cmap=panel.colours[1], alpha=0.5 if over else 1.0, interpolation="nearest")
        return
    best = np.ma.masked_where(masks.max(-1) <= 0, masks.argmax(-1))  # where no channel is on, the image shows
    axis.imshow(best, cmap="tab10", alpha=0.5 if over else 1.0, vmin=0, vmax=10, interpolation="nearest")
    for index, label in enumerate(panel.mask_labels or ()):
        axis.annotate(label, (1, 3 + 6 * index), fontsize=5, color=f"C{index % 10}")


def _draw_box(axis: Any, box: Sequence[Any]) -> None:
    from matplotlib.patches import Rectangle

    x, y, width, height = (float(side) for side in box[:4])
    axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="#d62728", linewidth=1))
    if len(box) > 4:
        axis.annotate(str(box[4]), (x, y), fontsize=5, color="#d62728")


def save_chart(chart: Chart, path: Path | str) -> Path:
    """A chart's lines over the step, bands where a series has them."""
    figure, axes = new_figure(6, 4)
    axis = axes[0, 0]
    for label, (steps, values, *band) in chart.series.items():
        (line,) = axis.plot(steps, values, marker=".", linewidth=1.2, label=str(label))
        if band:
            axis.fill_between(steps, *band, color=line.get_color(), alpha=0.2, linewidth=0)
    axis.set(xlabel="step", title=chart.title)
    axis.grid(alpha=0.25)
    if chart.series:
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return save_figure(figure, path)


def show(path: Path | str) -> None:
    """Shows a picture: in a notebook below its cell; elsewhere its path is printed."""
    shell = sys.modules.get("IPython")
    if shell is not None and shell.get_ipython() is not None:
        shell.display.display(shell.display.Image(filename=str(path)))
    else:
        print(f"picture: {path}")
