"""SVHN's cropped digits from their MATLAB files."""

from pathlib import Path
from typing import Literal

import numpy as np

from dataloaders.source import ImageSource
from runtime.errors import UsageError


class SvhnCropped(ImageSource):
    """Street View House Numbers (Netzer et al. 2011), format 2: (32, 32, 3), 10 labels, 73,257 "train", 26,032 "test".

    The file's label 10, which stands for the digit 0, becomes 0.
    """

    def __init__(self, root: str = "data/svhn", part: Literal["train", "test"] = "train"):
        from scipy.io import loadmat

        path = Path(root) / f"{part}_32x32.mat"
        if not path.is_file():
            raise UsageError(
                f"SVHN is missing: put {path.name} (from http://ufldl.stanford.edu/housenumbers/) into "
                f"{Path(root).absolute()}."
            )
        try:
            content = loadmat(path, variable_names=["X", "y"])
            images, labels = content["X"].transpose(3, 0, 1, 2), content["y"].reshape(-1) % 10
        except Exception as error:  # a damaged file raises nearly anything
            raise UsageError(f"{path} is no file of SVHN's ({error}); download it again.") from error
        super().__init__(np.ascontiguousarray(images), labels, classes=10)
