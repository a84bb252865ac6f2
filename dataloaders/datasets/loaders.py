"""The data sets this repository reads, as training and test NumpyDatasets."""

from typing import Any, Literal

from dataloaders.cifar10 import Cifar10
from dataloaders.cifar_variants import Cifair10, Cifair100, Cifar100
from dataloaders.datasets.rows import NumpyDataset
from dataloaders.digits import Digits
from dataloaders.house_numbers import SvhnCropped
from dataloaders.idx import FashionMnist, Mnist
from dataloaders.source import ImageSource
from dataloaders.usps import Usps

Pair = tuple[NumpyDataset, NumpyDataset]


def as_dataset(source: ImageSource, image_key: str = "x", label_key: str = "y") -> NumpyDataset:
    """Images (N, H, W, C) uint8 and labels (N,) int32."""
    return NumpyDataset({image_key: source.arrays["x"], label_key: source.arrays["label"]})


def after_split(data: NumpyDataset, fraction: float | int, part: Literal["left", "taken"]) -> NumpyDataset:
    """What `data.split(fraction)` leaves in the data set or takes out of it: two config nodes share one set so."""
    taken = data.split(fraction)
    return taken if part == "taken" else data


class Loader:
    """`load_data(root_dir)` gives a data set's training and test parts."""

    def __init__(self, source, root: str):
        self.source, self.root = source, root

    def load_data(
        self, root_dir: str | None = None, image_key: str = "x", label_key: str = "y", **options: Any
    ) -> Pair:
        """Training and test data; UsageError where files are missing, with where to get them.

        options: the source's own, such as label_mode="coarse" of cifar100.
        """
        train, test = (self.source(root_dir or self.root, part, **options) for part in ("train", "test"))
        return as_dataset(train, image_key, label_key), as_dataset(test, image_key, label_key)


def _digits(root: str, part: str) -> Digits:
    """The digits that travel with the repository; their last 297 are the test part."""
    return Digits("eval" if part == "test" else "train")


mnist = Loader(Mnist, "data/mnist")
fashion_mnist = Loader(FashionMnist, "data/fashion_mnist")
cifar10 = Loader(Cifar10, "data/cifar10")
cifar100 = Loader(Cifar100, "data/cifar100")
cifair10 = Loader(Cifair10, "data/cifair10")
cifair100 = Loader(Cifair100, "data/cifair100")
svhn_cropped = Loader(SvhnCropped, "data/svhn")
usps = Loader(Usps, "data/usps")
digits = Loader(_digits, "")
