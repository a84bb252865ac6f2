"""Images in folders by class, decoded once into a memory-mapped array."""

import os
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from dataloaders.pixel_cache import decode
from dataloaders.source import ImageSource, digest
from runtime.errors import UsageError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


class ImageFolder(ImageSource):
    """Images `root/<part>/<class>/*` as (size, size, channels), labelled by class folder.

    Labels number the class folders of all parts in sorted order. Each image is resized so that its short side is
    `size` (Lanczos) and cut to the middle square. The decoded pixels are kept as a memory map under `cache` (default:
    `root`/.cache), named after the options and a hash of the listing (paths, sizes, modification times), so that a
    changed folder is decoded anew.
    """

    def __init__(
        self,
        root: str = "data/image_folder",
        part: str = "train",
        size: int = 64,
        channels: Literal[1, 3] = 3,
        cache: str | None = None,
    ):
        if size < 1 or channels not in (1, 3):
            raise UsageError(f"size must be at least 1 and channels 1 or 3, got {size} and {channels}.")
        folder = Path(root) / part
        listing = images_in(folder)
        if not listing:
            raise UsageError(f"there are no images in {folder.absolute()}: put them there as <class>/<name>.jpg.")
        # From all parts, so that a class has one number even where a part lacks another class.
        names = sorted({path.name for path in Path(root).glob("*/*") if path.is_dir()})
        number = {name: index for index, name in enumerate(names)}
        store = Path(cache) if cache else Path(root) / ".cache"
        file = store / f"{part}-{size}x{size}x{channels}-{digest(listing)}.npy"
        if not file.exists():
            read = partial(read_image, size=size, channels=channels)
            decode([folder / kind / name for kind, name, _, _ in listing], file, (size, size, channels), read)
        labels = np.array([number[kind] for kind, _, _, _ in listing])
        super().__init__(np.load(file, mmap_mode="r"), labels, classes=len(names))


def images_in(folder: Path) -> list[tuple[str, str, int, int]]:
    """Class, file name, size in bytes and modification time in ns of each image in `folder`/<class>/, sorted."""
    return sorted(
        (kind.name, file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for kind in folder.glob("*/")
        for file in os.scandir(kind)  # keeps what it has read about a file: ten times faster than Path.stat here
        if Path(file.name).suffix.lower() in SUFFIXES
    )


def open_image(path: Path, channels: int):
    """A PIL image, RGB or grey; UsageError where the file is damaged."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return opened.convert("RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path} is no readable image ({error}); remove or replace it.") from error


def read_image(path: Path, size: int, channels: int, crop: int | None = None) -> np.ndarray:
    """One image as (size, size, channels) uint8: resized by its short side, middle square kept.

    crop: of the middle square of this side alone; nothing around it enters.
    """
    from PIL import Image

    image = open_image(path, channels)
    if crop is not None:
        if min(image.size) < crop:
            raise UsageError(f"{path} is {image.width} x {image.height}; the crop needs {crop} x {crop} at least.")
        left, top = (image.width - crop) // 2, (image.height - crop) // 2
        image = image.crop((left, top, left + crop, top + crop))
    if image.size != (size, size):
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        image = image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + edge, top + edge))
    return np.asarray(image).reshape(size, size, channels)
