"""MNIST and Fashion-MNIST from their IDX files."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from dataloaders.source import ImageSource
from runtime.errors import UsageError

PREFIX = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array (N, ...) of an IDX file, gzipped where the name ends in .gz; UsageError where it is damaged.

    Format: two zero bytes, type code (8 = unsigned byte), number of axes, big-endian 32-bit lengths, data.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read ({error}); download it again.") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise UsageError(f"{path} is no IDX file of bytes: it begins with {raw[:4].hex()!r}, needed '000008' + axes.")
    begin = 4 + 4 * raw[3]
    shape = tuple(int(n) for n in np.frombuffer(raw[4 : min(begin, len(raw) // 4 * 4)], ">u4"))
    needed = begin + math.prod(shape)
    if len(shape) != raw[3] or len(raw) != needed:
        raise UsageError(f"{path} has {len(raw)} bytes, its header needs {needed}; download it again.")
    return np.frombuffer(raw, np.uint8, offset=begin).reshape(shape)


def find_idx(folders: list[Path], part: str, kind: str) -> Path | None:
    """The file of a part ("train", "test") and kind ("images-idx3", "labels-idx1") in the first folder with one."""
    for folder in folders:
        for name in (f"{PREFIX[part]}-{kind}-ubyte", f"{PREFIX[part]}-{kind.replace('-', '.')}-ubyte"):
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return path
    return None


class Mnist(ImageSource):
    """MNIST digits (28, 28, 1) with 10 labels: 60,000 "train", 10,000 "test", from IDX files under `root`.

    pad: background pixels added on every side (2 gives 32 x 32).
    """

    NAME = "MNIST"
    FALLBACK: Path | None = None
    WHERE = "https://storage.googleapis.com/cvdf-datasets/mnist/"

    def __init__(self, root: str = "data/mnist", part: Literal["train", "test"] = "train", pad: int = 0):
        if pad < 0:
            raise UsageError(f"pad must be at least 0, got {pad}.")
        folders = [Path(root), *([self.FALLBACK] if self.FALLBACK else [])]
        pixels, classes = (find_idx(folders, part, kind) for kind in ("images-idx3", "labels-idx1"))
        if pixels is None or classes is None:
            raise UsageError(
                f"{self.NAME} is missing: put {PREFIX[part]}-images-idx3-ubyte.gz and"
                f" {PREFIX[part]}-labels-idx1-ubyte.gz (from {self.WHERE}) into {Path(root).absolute()}."
            )
        images, labels = read_idx(pixels), read_idx(classes)
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise UsageError(f"{pixels} holds {images.shape} and {classes} {labels.shape}; needed (N, H, W) and (N,).")
        images = np.pad(images, ((0, 0), (pad, pad), (pad, pad)))
        super().__init__(images[..., None], labels, classes=10)


class FashionMnist(Mnist):
    """Fashion-MNIST (arXiv 1708.07747) in MNIST's layout; without files under `root`, Debian's copy is taken."""

    NAME = "Fashion-MNIST"
    FALLBACK = Path("/usr/share/datasets/fashion-mnist")
    WHERE = "github.com/zalandoresearch/fashion-mnist, or install the Debian package dataset-fashion-mnist; files"

    def __init__(self, root: str = "data/fashion_mnist", part: Literal["train", "test"] = "train", pad: int = 0):
        super().__init__(root, part, pad)
