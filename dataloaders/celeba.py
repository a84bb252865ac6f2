"""CelebA, the aligned and cropped faces (Liu et al., arXiv 1411.7766)."""

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from dataloaders.image_folder import read_image
from dataloaders.pixel_cache import decode
from dataloaders.source import ImageSource, digest
from runtime.errors import UsageError

PARTS = {"train": "0", "valid": "1", "test": "2"}  # as list_eval_partition.txt numbers them
WIDTH, HEIGHT = 178, 218
FOLDER, PARTITION = "img_align_celeba", "list_eval_partition.txt"


class CelebA(ImageSource):
    """Faces (size, size, 3) without labels: 162,770 "train", 19,867 "valid" and 19,962 "test".

    Reads root/img_align_celeba/*.jpg (178 x 218) as root/list_eval_partition.txt divides them. crop: side of the
    middle square that is kept, 148 or 140 in most papers, then resized (Lanczos). The decoded pixels are kept as a
    memory map under `cache` (default: root/.cache), 2 GB for all at size 64.
    """

    def __init__(
        self,
        root: str = "data/celeba",
        part: Literal["train", "valid", "test"] = "train",
        size: int = 64,
        crop: int = 148,
        cache: str | None = None,
    ):
        if size < 1 or not 1 <= crop <= WIDTH:
            raise UsageError(f"CelebA: size must be at least 1 and crop lie in 1..{WIDTH}, got {size} and {crop}.")
        folder, partition = Path(root) / FOLDER, Path(root) / PARTITION
        if not folder.is_dir() or not partition.is_file():
            raise UsageError(
                f"CelebA is missing: put {PARTITION} and the folder {FOLDER} (img_align_celeba.zip, from"
                f" https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html) into {Path(root).absolute()}."
            )
        names = names_of(partition, part)
        if lacks := [name for name in names if not (folder / name).is_file()]:
            raise UsageError(f"{folder} lacks {len(lacks)} of the {len(names)} {part} images, {lacks[0]} for example.")
        sizes = [(folder / name).stat().st_size for name in names]
        store = Path(cache) if cache else Path(root) / ".cache"
        file = store / f"celeba-{part}-{crop}-{size}-{digest(names, sizes)}.npy"
        if not file.exists():
            read = partial(read_image, size=size, channels=3, crop=crop)
            decode([folder / name for name in names], file, (size, size, 3), read)
        super().__init__(np.load(file, mmap_mode="r"))


def names_of(partition: Path, part: str) -> list[str]:
    """The file names of a part, in the order of the official list: lines of a name and 0, 1 or 2."""
    names = []
    for number, line in enumerate(partition.read_text().splitlines(), 1):
        words = line.split()
        if len(words) != 2 or words[1] not in PARTS.values():
            raise UsageError(f"{partition}, line {number}: needed a file name and 0, 1 or 2, got {line!r}.")
        if words[1] == PARTS[part]:
            names.append(words[0])
    if not names:
        raise UsageError(f"{partition} has no images of the part {part!r} ({PARTS[part]}).")
    return names
