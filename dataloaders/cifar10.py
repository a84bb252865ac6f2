"""CIFAR-10 from the official archives, or from a folder of images by class."""

import math
import tarfile
from pathlib import Path
from typing import Literal

import numpy as np

from dataloaders.image_folder import ImageFolder
from dataloaders.pickles import read_pickle
from dataloaders.source import ImageSource
from runtime.errors import UsageError

IMAGE = (3, 32, 32)
PIXELS = math.prod(IMAGE)
FILES = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}
LAYOUTS = {"cifar-10-batches-py": "cifar-10-python.tar.gz", "cifar-10-batches-bin": "cifar-10-binary.tar.gz"}


class Cifar10(ImageSource):
    """CIFAR-10 (Krizhevsky 2009), (32, 32, 3) with 10 labels: 50,000 "train", 10,000 "test".

    Looks under `root` for the official Python or binary version, as extracted folder or as .tar.gz (read in place),
    then for `<part>/<class>/*.jpg` or .png. Images of the last kind are usually re-encoded: do not compare their FID
    with published values.
    """

    def __init__(self, root: str = "data/cifar10", part: Literal["train", "test"] = "train"):
        folder = Path(root)
        self.layout = next((k for k, v in LAYOUTS.items() if (folder / k).is_dir() or (folder / v).is_file()), "images")
        if self.layout == "images":
            if not (folder / part).is_dir():
                raise UsageError(
                    "CIFAR-10 is missing: put cifar-10-python.tar.gz (from https://www.cs.toronto.edu/~kriz/cifar.html)"
                    f" into {folder.absolute()}."
                )
            images = ImageFolder(root, part, size=32).arrays
            super().__init__(images["x"], images["label"], classes=10)
            return
        parse = parse_pickle if self.layout == "cifar-10-batches-py" else parse_binary
        parts = [parse(raw, name) for name, raw in read_files(folder, self.layout, FILES[part]).items()]
        images = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, *IMAGE).transpose(0, 2, 3, 1)
        super().__init__(np.ascontiguousarray(images), np.concatenate([labels for _, labels in parts]), classes=10)


def read_files(folder: Path, layout: str, names: list[str]) -> dict[str, bytes]:
    """The contents of the batch files by path, from the extracted folder or else from the archive."""
    names = [f"{layout}/{name}{'.bin' if layout.endswith('bin') else ''}" for name in names]
    if (folder / layout).is_dir():
        for name in names:
            if not (folder / name).is_file():
                raise UsageError(f"CIFAR-10 is incomplete: {folder / name} is missing; extract the archive again.")
        return {str(folder / name): (folder / name).read_bytes() for name in names}
    path = folder / LAYOUTS[layout]
    try:
        with tarfile.open(path) as archive:
            return {f"{path}:{name}": read_member(archive, name) for name in names}
    except (OSError, EOFError, KeyError, tarfile.TarError) as error:
        raise UsageError(f"{path} cannot be read ({error}); download it again.") from error


def read_member(archive: tarfile.TarFile, name: str) -> bytes:
    """The contents of a file in the archive; raises KeyError where there is no such file."""
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()


def parse_pickle(raw: bytes, name: str, label: str = "labels") -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) uint8 and labels (N,), kept under the key `label`, of a file of the Python version."""
    try:
        # Unpickling garbage raises nearly any exception, so all of them mean a damaged file here.
        content = {key if isinstance(key, bytes) else key.encode(): v for key, v in read_pickle(raw, "bytes").items()}
        pixels, labels = content[b"data"], np.asarray(content[label.encode()])
    except Exception as error:
        raise UsageError(f"{name} is no CIFAR batch ({error}); download it again.") from error
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS):
        raise UsageError(f"{name} holds {np.shape(pixels)} for {len(labels)} labels; needed (N, {PIXELS}) uint8.")
    return pixels, labels


def parse_binary(raw: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) uint8 and labels (N,) of a file of the binary version: rows of one label and 3072 pixels."""
    if not raw or len(raw) % (PIXELS + 1):
        raise UsageError(f"{name} has {len(raw)} bytes, needed a multiple of {PIXELS + 1}; download it again.")
    rows = np.frombuffer(raw, np.uint8).reshape(-1, PIXELS + 1)
    return rows[:, 1:], rows[:, 0]
