"""Figures without a display or pyplot's global state, and files that appear whole or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UsageError

INK, DATA, SAMPLES = "#333333", "#8c8c8c", "#1f6fb4"  # text; data in gray, samples in blue, in every picture
STILLS = 6  # frames of a film that a PNG shows side by side


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
    if not path.parent.is_dir():  # a mkdir that fails takes longer
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


def save_film(frames: list, path: Path | str, milliseconds: int = 80, hold: int = 1_000) -> Path:
    """Writes PIL images of one size by the path's suffix: .gif, .mp4, or .png, up to `STILLS` of them side by side."""
    suffix = Path(path).suffix
    if suffix == ".gif":
        return save_gif(frames, path, milliseconds, hold)
    if suffix == ".mp4":
        return save_mp4(frames, path, milliseconds, hold)
    if suffix != ".png":
        raise UsageError(f"what moves is written as .gif, .mp4 or .png (side by side), got {str(path)!r}.")
    from PIL import Image

    picked = np.unique(np.linspace(0, len(frames) - 1, min(STILLS, len(frames))).round().astype(int))
    page = Image.fromarray(np.concatenate([np.asarray(frames[index]) for index in picked], axis=1))
    return write(path, page.save)


def save_mp4(frames: list, path: Path | str, milliseconds: int, hold: int) -> Path:
    """Writes PIL images as an MP4 (H.264), sides made even by white; the last frame stays for `hold` milliseconds.

    Raises UsageError where imageio-ffmpeg, which brings ffmpeg, is not installed.
    """
    try:
        from imageio_ffmpeg import write_frames
    except ImportError as error:
        raise UsageError("MP4 needs ffmpeg, which pip install 'mlx-lab[video]' brings; or take format=gif.") from error
    pixels = [np.asarray(frame.convert("RGB")) for frame in frames]
    height, width = pixels[0].shape[:2]
    edge = ((0, height % 2), (0, width % 2), (0, 0))  # its colours are stored for squares of 2 x 2 pixels
    even = [np.ascontiguousarray(np.pad(image, edge, constant_values=255)) for image in pixels]
    size = (width + width % 2, height + height % 2)

    def save(temporary: Path) -> None:
        film = write_frames(
            str(temporary),
            size,
            fps=1_000 / milliseconds,  # pyright: ignore[reportArgumentType]  # ffmpeg takes fractions
            quality=8,
            macro_block_size=1,
        )
        film.send(None)  # a generator that takes frames once it has started
        for image in [*even, *(even[-1:] * round(hold / milliseconds - 1))]:
            film.send(image)
        film.close()

    return write(path, save)
