"""CIFAR-100 and the ciFAIR test sets, from the Python versions' files."""

from pathlib import Path
from typing import Literal

import numpy as np

from dataloaders.cifar10 import FILES, IMAGE, parse_pickle
from dataloaders.source import ImageSource
from runtime.errors import UsageError


class _CifarFiles(ImageSource):
    """Images (32, 32, 3) of pickled batches in `root`/FOLDER, 50,000 "train" and 10,000 "test"."""

    NAME, FOLDER, WHERE, CLASSES, LABEL = "", "", "", 0, "labels"
    PARTS = FILES

    def __init__(self, root: str, part: Literal["train", "test"] = "train"):
        folder = Path(root) / self.FOLDER
        parts = []
        for name in self.PARTS[part]:
            if not (folder / name).is_file():
                raise UsageError(
                    f"{self.NAME} is missing: extract {self.WHERE} in {Path(root).absolute()}, which gives "
                    f"{self.FOLDER}/{name}."
                )
            parts.append(parse_pickle((folder / name).read_bytes(), str(folder / name), self.LABEL))
        images = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, *IMAGE).transpose(0, 2, 3, 1)
        labels = np.concatenate([labels for _, labels in parts])
        super().__init__(np.ascontiguousarray(images), labels, classes=self.CLASSES)


class Cifar100(_CifarFiles):
    """CIFAR-100 (Krizhevsky 2009) with its 100 fine labels, or its 20 coarse ones."""

    NAME, FOLDER, CLASSES = "CIFAR-100", "cifar-100-python", 100
    WHERE = "cifar-100-python.tar.gz (from https://www.cs.toronto.edu/~kriz/cifar.html)"
    PARTS = {"train": ["train"], "test": ["test"]}

    def __init__(self, root: str = "data/cifar100", part: Literal["train", "test"] = "train",
                 label_mode: Literal["fine", "coarse"] = "fine"):  # fmt: skip
        if label_mode not in ("fine", "coarse"):
            raise UsageError(f"label_mode must be fine or coarse, got {label_mode!r}.")
        self.LABEL, self.CLASSES = f"{label_mode}_labels", 100 if label_mode == "fine" else 20
        super().__init__(root, part)


class Cifair10(_CifarFiles):
    """ciFAIR-10 (arXiv 1902.00423): CIFAR-10 whose test images have no near duplicates among the training images."""

    NAME, FOLDER, CLASSES = "ciFAIR-10", "ciFAIR-10", 10
    WHERE = "ciFAIR-10.zip (from https://cvjena.github.io/cifair/)"

    def __init__(self, root: str = "data/cifair10", part: Literal["train", "test"] = "train"):
        super().__init__(root, part)


class Cifair100(Cifar100):
    """ciFAIR-100 (arXiv 1902.00423): CIFAR-100 without near duplicates between test and training images."""

    NAME, FOLDER = "ciFAIR-100", "ciFAIR-100"
    WHERE = "ciFAIR-100.zip (from https://cvjena.github.io/cifair/)"

    def __init__(self, root: str = "data/cifair100", part: Literal["train", "test"] = "train",
                 label_mode: Literal["fine", "coarse"] = "fine"):  # fmt: skip
        super().__init__(root, part, label_mode)
