"""Images as grids, strips of a denoising, and its animation; pixel for pixel, without axes."""

from pathlib import Path

import numpy as np

from runtime.errors import UsageError
from visualizers.canvas import save_film, write

GAP, PAPER = 2, 255  # pixels between images, and their white


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Images (..., H, W, 1 or 3) in [-1, 1] as uint8 (..., H, W, 3): -1 is 0, 0 and NaN 128, 1 is 255."""
    images = np.asarray(images)
    if images.ndim < 3 or images.shape[-1] not in (1, 3):
        raise UsageError(f"images must be (..., H, W, 1 or 3), got shape {images.shape}.")
    pixels = np.floor((np.clip(np.nan_to_num(images.astype(np.float32)), -1, 1) + 1) * 127.5 + 0.5).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:-1], 3))


def tile(images: np.ndarray, columns: int, zoom: int) -> np.ndarray:
    """Images (n, H, W, C) row by row as one uint8 picture, white gaps of two pixels, each pixel zoom x zoom."""
    pixels = to_pixels(images).repeat(zoom, axis=1).repeat(zoom, axis=2)
    count, height, width, _ = pixels.shape
    rows = -(-count // columns)
    page = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), PAPER, np.uint8)
    for index, picture in enumerate(pixels):
        top, left = (
            GAP + place * (side + GAP) for place, side in zip(divmod(index, columns), (height, width), strict=True)
        )
        page[top : top + height, left : left + width] = picture
    return page


def zoom_for(height: int, width: int) -> int:
    """How much to enlarge: small images to about 64 pixels, larger ones not."""
    return max(1, 64 // max(height, width))


def _image(pixels: np.ndarray):
    from PIL import Image

    return Image.fromarray(pixels)


def save_grid(images: np.ndarray, path: Path | str, columns: int | None = None, zoom: int | None = None) -> Path:
    """Images (n, H, W, C) in [-1, 1] as a grid in a PNG; about square unless `columns` is given."""
    columns = columns or int(np.ceil(np.sqrt(len(images))))
    page = tile(images, columns, zoom or zoom_for(*images.shape[1:3]))
    return write(path, lambda temporary: _image(page).save(temporary))


def save_class_grid(
    images: np.ndarray, labels: np.ndarray, path: Path | str, per_class: int = 10, zoom: int | None = None
) -> Path:
    """A row for each class, in order, of its first `per_class` images (n, H, W, C); labels (n,). PNG.

    Classes with fewer images leave white at the end of their row.
    """
    if len(images) != len(labels):
        raise UsageError(f"a class grid needs one label an image, got {len(images)} images and {len(labels)} labels.")
    zoom = zoom or zoom_for(*images.shape[1:3])
    classes = np.unique(labels)
    cell = [side * zoom + GAP for side in images.shape[1:3]]
    page = np.full((len(classes) * cell[0] + GAP, per_class * cell[1] + GAP, 3), PAPER, np.uint8)
    for row, label in enumerate(classes):
        strip = tile(images[labels == label][:per_class], per_class, zoom)
        page[row * cell[0] : row * cell[0] + len(strip)] = strip
    return write(path, lambda temporary: _image(page).save(temporary))


def save_strip(paths: np.ndarray, path: Path | str, shown: int = 8, columns: int = 10) -> Path:
    """Denoising (T, n, H, W, C) as PNG: `shown` images a row each, at `columns` times from noise to sample."""
    picked = np.unique(np.linspace(0, len(paths) - 1, min(columns, len(paths))).round().astype(int))
    rows = np.asarray(paths)[picked][:, :shown].swapaxes(0, 1)
    return save_grid(rows.reshape(-1, *rows.shape[2:]), path, columns=len(picked))


def save_denoising(paths: np.ndarray, path: Path | str, shown: int = 16, frames: int = 40) -> Path:
    """Denoising (T, n, H, W, C) as a film of a grid of the first `shown` images."""
    paths = np.asarray(paths)[:, :shown]
    picked = np.unique(np.linspace(0, len(paths) - 1, min(frames, len(paths))).round().astype(int))
    columns, zoom = int(np.ceil(np.sqrt(paths.shape[1]))), zoom_for(*paths.shape[2:4])
    return save_film([_image(tile(paths[index], columns, zoom)) for index in picked], path)
