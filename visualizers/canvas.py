"""Figures without a display or pyplot's global state, and files that appear whole or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

INK, DATA, SAMPLES = "#333333", "#8c8c8c", "#1f6fb4"  # text; data in gray, samples in blue, in every picture


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **subplot: Any) -> tuple[Any, Any]:
    """A figure of width x height inches on the Agg canvas and its axes, an array (rows, columns).

    No backend is chosen for the process: a notebook that imports this keeps its own.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **subplot)


def write(path: Path | str, save: Callable[[Path], Any]) -> Path:
    """Lets `save` write to a temporary name beside `path` (parents are made), then renames it; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def save_figure(figure: Any, path: Path | str, dpi: int = 120) -> Path:
    """Writes a figure in the format of the path's suffix."""
    return write(path, lambda temporary: figure.savefig(temporary, dpi=dpi))


def figure_image(figure: Any, dpi: int = 100) -> Any:
    """The drawn figure as a PIL image (RGB)."""
    from PIL import Image

    figure.set_dpi(dpi)
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


def save_gif(frames: list, path: Path | str, milliseconds: int = 80, hold: int = 1_000) -> Path:
    """Writes PIL images as an endless GIF; the last frame stays for `hold` milliseconds."""
    from PIL import Image

    times = [milliseconds] * (len(frames) - 1) + [hold]
    # One palette for all, chosen over some frames side by side: palettes of their own would flicker.
    picked = [frames[index] for index in sorted({round(i * (len(frames) - 1) / 7) for i in range(8)})]
    palette = Image.fromarray(np.concatenate([np.asarray(frame) for frame in picked])).quantize(256)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    first, rest = indexed[0], indexed[1:]
    return write(
        path, lambda temporary: first.save(temporary, save_all=True, append_images=rest, duration=times, loop=0)
    )
