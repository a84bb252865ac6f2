"""The data sets this repository reads, as training and test NumpyDatasets."""

from dataloaders.cifar10 import Cifar10
from dataloaders.datasets.rows import NumpyDataset
from dataloaders.idx import FashionMnist, Mnist
from dataloaders.source import ImageSource

Pair = tuple[NumpyDataset, NumpyDataset]


def as_dataset(source: ImageSource, image_key: str = "x", label_key: str = "y") -> NumpyDataset:
    """Images (N, H, W, C) uint8 and labels (N,) int32."""
    return NumpyDataset({image_key: source.arrays["x"], label_key: source.arrays["label"]})


class Loader:
    """`load_data(root)` gives a data set's training and test parts."""

    def __init__(self, source, root: str):
        self.source, self.root = source, root

    def load_data(self, root: str | None = None, image_key: str = "x", label_key: str = "y") -> Pair:
        """Training and test data; UsageError where files are missing, with where to get them."""
        train, test = (self.source(root or self.root, part) for part in ("train", "test"))
        return as_dataset(train, image_key, label_key), as_dataset(test, image_key, label_key)


mnist = Loader(Mnist, "data/mnist")
fashion_mnist = Loader(FashionMnist, "data/fashion_mnist")
cifar10 = Loader(Cifar10, "data/cifar10")
