"""USPS digits from their text files."""

import gzip
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from dataloaders.source import ImageSource
from runtime.errors import UsageError


class Usps(ImageSource):
    """USPS digits (Hull 1994), (16, 16, 1) with 10 labels: 7,291 "train" (zip.train.gz), 2,007 "test" (zip.test.gz).

    A line is a label and 256 values in [-1, 1], which become the nearest of 0 to 255.
    """

    def __init__(self, root: str = "data/usps", part: Literal["train", "test"] = "train"):
        path = Path(root) / f"zip.{part}.gz"
        if not path.is_file():
            raise UsageError(
                f"USPS is missing: put {path.name} (from https://hastie.su.domains/ElemStatLearn/data.html) into "
                f"{Path(root).absolute()}."
            )
        try:
            with gzip.open(path, "rt") as file:
                rows = np.loadtxt(file, np.float32, ndmin=2)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise UsageError(f"{path} is no file of USPS' ({error}); download it again.") from error
        if rows.shape[1] != 257 or np.abs(rows[:, 1:]).max() > 1:
            raise UsageError(
                f"{path} has lines of {rows.shape[1]} numbers; needed: a label and 256 numbers in [-1, 1]."
            )
        pixels = np.rint((rows[:, 1:] + 1) * 127.5).astype(np.uint8).reshape(-1, 16, 16, 1)
        super().__init__(pixels, rows[:, 0].astype(np.int32), classes=10)
