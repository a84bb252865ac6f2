"""The 8 x 8 handwritten digits that travel with the repository."""

from pathlib import Path
from typing import Literal

import numpy as np

from dataloaders.source import ImageSource

FILE = Path(__file__).with_name("digits.npz")
TRAIN = 1500


class Digits(ImageSource):
    """1797 digits (8, 8, 1) with values 0..16 sent to [-1, 1]: rows 0..1499 are "train", the last 297 "eval".

    Source: scikit-learn's copy of the test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and
    C. Kaynak, UCI Machine Learning Repository, 1998, doi.org/10.24432/C50P49, licence CC BY 4.0; kept in its order.
    """

    def __init__(self, part: Literal["train", "eval"] = "train"):
        with np.load(FILE) as stored:
            rows = slice(0, TRAIN) if part == "train" else slice(TRAIN, None)
            super().__init__(stored["images"][rows, :, :, None], stored["labels"][rows], classes=10, peak=16)
