"""ImageNet (ILSVRC 2012), decoded batch by batch: the pixels of all images would not fit a disk, let alone memory."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from dataloaders.image_folder import SUFFIXES, open_image
from dataloaders.source import Source, digest
from runtime.errors import UsageError
from runtime.op import NumpyBatch


class ImageNet(Source):
    """Images `root/<part>/<wnid>/*.JPEG` as (size, size, 3), labelled by the sorted wnid folders of "train".

    1,281,167 "train" and 50,000 "val" (which comes in one folder: sort it into the same wnid folders). Each is
    halved while both sides are at least twice `size`, resized so that its short side is `size` (bicubic), and cut to
    the middle square, as in ADM (arXiv 2105.05233) and DiT. threads: that decode a batch together. Memory holds the
    names and the batches.
    """

    def __init__(
        self,
        root: str = "data/imagenet",
        part: Literal["train", "val"] = "train",
        size: int = 256,
        threads: int = 8,
    ):
        if size < 1 or threads < 1:
            raise UsageError(f"ImageNet: size and threads must be at least 1, got {size} and {threads}.")
        self.folder, self.size, self.threads = Path(root) / part, size, threads
        wnids = sorted(path.name for path in (Path(root) / "train").glob("*/"))
        names, labels = listing(self.folder, wnids)
        if not names:
            raise UsageError(
                f"ImageNet is missing: put the class folders n01440764, ... of ILSVRC 2012's {part} images (from"
                f" https://www.image-net.org/download.php, free for research) into {self.folder.absolute()}."
            )
        self.names = np.array([os.fsencode(name) for name in names])  # 40 MB for all, text would take 150
        self.labels = np.array(labels, np.int32)
        self.shape, self.classes = (size, size, 3), len(wnids)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: np.ndarray, rng: np.random.Generator) -> NumpyBatch:
        """The images in [-1, 1] with their labels."""
        paths = [self.folder / os.fsdecode(bytes(name)) for name in self.names[indices]]
        with ThreadPoolExecutor(self.threads) as pool:  # PIL decodes outside the interpreter lock
            pixels = np.stack(list(pool.map(self.read, paths)))
        return {"x": pixels / np.float32(127.5) - 1, "label": self.labels[indices]}

    def read(self, path: Path) -> np.ndarray:
        """One image, (size, size, 3) uint8."""
        return center_crop(open_image(path, 3), self.size)

    def fingerprint(self) -> str:
        """A hash of the names and the size."""
        return digest("ImageNet", self.size, self.names.tobytes())


def listing(folder: Path, wnids: list[str]) -> tuple[list[str], list[int]]:
    """Names "<wnid>/<file>" and labels of the images in `folder`, sorted."""
    names, labels = [], []
    for label, wnid in enumerate(wnids):
        if (folder / wnid).is_dir():
            files = sorted(file.name for file in os.scandir(folder / wnid))
            found = [f"{wnid}/{name}" for name in files if Path(name).suffix.lower() in SUFFIXES]
            names += found
            labels += [label] * len(found)
    return names, labels


def center_crop(image, size: int) -> np.ndarray:
    """The middle square of a PIL image, (size, size, 3) uint8."""
    from PIL import Image

    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))
