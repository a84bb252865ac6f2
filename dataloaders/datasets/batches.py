"""Batches composed of several data sets."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dataloaders.datasets.composed import joined_summary, refuse_patterns, split_each
from dataloaders.datasets.rows import Fraction
from dataloaders.datasets.summary import DatasetSummary
from dataloaders.samples import read
from runtime.errors import UsageError

MOST = 2**62  # row numbers that int64 holds


class BatchDataset:
    """Batches with a stated share of each data set.

    Data sets with the same keys: `num_samples` [3, 5] puts 3 samples of the first and 5 of the second into each batch;
    an int with `probability` [.7, .3] draws the data set of each sample. With different keys (unpaired data): every
    sample has a random row of each data set, and the numbers must be equal. An epoch lasts until each data set has
    been through once; shorter ones begin anew, shuffled anew. `len` counts samples, and the Pipeline takes
    batch size, `whole_batch`, from here. Rows of an epoch are numbers made by `order`, which `sample` reads.
    """

    def __init__(
        self, datasets: Sequence[Any], num_samples: int | Sequence[int], probability: Sequence[float] | None = None
    ):
        self.datasets = list(datasets)
        self.counts = [num_samples] if isinstance(num_samples, int) else list(num_samples)
        self.probability = None if probability is None else list(probability)
        refuse_patterns("BatchDataset", self.datasets)
        if len(self.datasets) < 2 or min(self.counts) < 1:
            raise UsageError(
                f"BatchDataset needs two data sets and counts from 1, got {len(self.datasets)} and {self.counts}."
            )
        keys = [set(read(data, 0, np.random.default_rng(0))) for data in self.datasets]
        self.same_keys = all(own == keys[0] for own in keys)
        if not self.same_keys and sum(map(len, keys)) != len(set().union(*keys)):
            raise UsageError(
                "BatchDataset needs data sets with the same keys or with none in common, got "
                f"{[sorted(own) for own in keys]}."
            )
        self._check_counts()
        self.sizes = [len(data) for data in self.datasets]
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        self.whole_batch = self.counts[0] if self.probability or not self.same_keys else sum(self.counts)
        if not self.same_keys and np.prod([float(n) for n in self.sizes]) >= MOST:
            raise UsageError(f"BatchDataset: {self.sizes} rows have more pairs than can be numbered.")

    def _check_counts(self) -> None:
        if self.probability is not None:
            good = len(self.probability) == len(self.datasets) and min(self.probability) > 0
            if not (good and abs(sum(self.probability) - 1) < 1e-8 and len(self.counts) == 1 and self.same_keys):
                raise UsageError(
                    "BatchDataset: probability needs one positive number a data set that sum to 1, an int for "
                    f"num_samples and the same keys, got {self.probability} and {self.counts}."
                )
        elif len(self.counts) != len(self.datasets) or (not self.same_keys and len(set(self.counts)) != 1):
            raise UsageError(
                f"BatchDataset: num_samples needs a number for each of {len(self.datasets)} data sets (equal ones "
                f"where they have different keys), or one with probability, got {self.counts}."
            )

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        shares = self.counts if self.probability is None else [self.counts[0] * p for p in self.probability]
        return max(int(np.ceil(n / share - 1e-9)) for n, share in zip(self.sizes, shares, strict=True))

    def __len__(self) -> int:
        return self.batches * self.whole_batch

    def order(self, rng: np.random.Generator | None) -> np.ndarray:
        """Row numbers of one epoch (len,), batch after batch; without an `rng` always the same, in the sets' order."""
        draw = np.random.default_rng(0) if rng is None else rng
        batches, size = self.batches, self.whole_batch
        if not self.same_keys:
            number = np.zeros(batches * size, np.int64)
            for data, n in enumerate(self.sizes):
                number = number * n + self._cycled(data, batches * size, rng)
            return number
        if self.probability is None:
            which = np.tile(np.repeat(np.arange(len(self.counts)), self.counts), (batches, 1))
        else:
            which = draw.choice(len(self.datasets), (batches, size), p=self.probability)
        if rng is not None:
            which = rng.permuted(which, axis=1)
        which = which.reshape(-1)
        number = np.zeros(len(which), np.int64)
        for data in range(len(self.datasets)):
            places = which == data
            number[places] = self.starts[data] + self._cycled(data, int(places.sum()), rng)
        return number

    def _cycled(self, data: int, count: int, rng: np.random.Generator | None) -> np.ndarray:
        """`count` rows of a data set, every one before any comes again."""
        size = self.sizes[data]
        rounds = [np.arange(size) if rng is None else rng.permutation(size) for _ in range(-(-count // size))]
        return np.concatenate(rounds)[:count] if rounds else np.empty(0, np.int64)

    def random_row(self, rng: np.random.Generator) -> int:
        """A row number to take in place of one that was filtered out."""
        return int(rng.integers(int(np.prod(self.sizes)) if not self.same_keys else int(self.starts[-1])))

    def sample(self, row: int, rng: np.random.Generator) -> dict[str, Any]:
        """The sample of a row number."""
        if self.same_keys:
            data = int(np.searchsorted(self.starts, row, side="right")) - 1
            return read(self.datasets[data], int(row - self.starts[data]), rng)
        found: dict[str, Any] = {}
        for data, size in zip(reversed(self.datasets), reversed(self.sizes), strict=True):
            row, own = divmod(int(row), size)
            found |= read(data, own, rng)
        return found

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.sample(int(self.order(None)[index]), np.random.default_rng(index))

    def split(self, *fractions: Fraction, seed: int | None = None, stratify: str | None = None) -> Any:
        """Splits every data set as `RowsDataset.split` does, and composes batches of the parts in the same way."""
        parts = split_each(self.datasets, fractions, seed, stratify)
        counts = self.counts[0] if self.probability else self.counts
        made = [type(self)(part, counts, self.probability) for part in parts]
        self.__init__(self.datasets, counts, self.probability)
        return made[0] if len(made) == 1 else made

    def summary(self) -> DatasetSummary:
        """The samples of an epoch, and the keys of all data sets."""
        return joined_summary(len(self), self.datasets)
