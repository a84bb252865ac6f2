"""Data sets made of data sets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dataloaders.datasets.rows import Fraction
from dataloaders.datasets.summary import DatasetSummary, summarized
from dataloaders.samples import order_of, read
from runtime.errors import UsageError


class CombinedDataset:
    """Data sets one after another, all with the same keys."""

    def __init__(self, datasets: Sequence[Any]):
        self.datasets = list(datasets)
        refuse_patterns("CombinedDataset", self.datasets)
        keys = [set(read(data, 0, np.random.default_rng(0))) for data in self.datasets]
        if len(keys) < 2 or any(own != keys[0] for own in keys):
            raise UsageError(f"CombinedDataset needs data sets with the same keys, got {[sorted(k) for k in keys]}.")
        self.ends = np.cumsum([len(data) for data in self.datasets])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.sample(index, np.random.default_rng(index))

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Row `index` of all rows; IndexError beyond them."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self.ends, index, side="right"))
        return read(self.datasets[which], int(index - (self.ends[which - 1] if which else 0)), rng)

    def summary(self) -> DatasetSummary:
        """The first set's, with the rows of all."""
        return DatasetSummary(len(self), summarized(self.datasets[0]).keys)


class ExtendDataset:
    """A data set whose epoch has `spoof_length` samples: all of it as often as that takes, then a random rest.

    Evaluation takes the rows in their order, as often as that takes.
    """

    def __init__(self, dataset: Any, spoof_length: int):
        if spoof_length < 1:
            raise UsageError(f"spoof_length must be at least 1, got {spoof_length}.")
        if isinstance(dataset, ExtendDataset | InterleaveDataset):
            raise UsageError(f"ExtendDataset takes a data set of samples, got a {type(dataset).__name__}.")
        self.dataset, self.spoof_length = dataset, spoof_length
        self.whole_batch = getattr(dataset, "whole_batch", None)
        if self.whole_batch and spoof_length % self.whole_batch:
            raise UsageError(
                f"spoof_length must be whole batches of the data set's {self.whole_batch} samples, got {spoof_length}."
            )

    def __len__(self) -> int:
        return self.spoof_length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.dataset[int(index) % len(self.dataset)]

    def sample(self, row: int, rng: np.random.Generator) -> dict[str, Any]:
        """The sample of a row that `order` gave."""
        return read(self.dataset, row, rng)

    def order(self, rng: np.random.Generator | None) -> np.ndarray:
        """The rows of one epoch (spoof_length,), in their order without an `rng`."""
        rounds = -(-self.spoof_length // len(self.dataset))
        return np.concatenate([order_of(self.dataset, rng) for _ in range(rounds)])[: self.spoof_length]

    def random_row(self, rng: np.random.Generator) -> int:
        """A row to take in place of one that was filtered out."""
        inner = self.dataset
        return inner.random_row(rng) if hasattr(inner, "random_row") else int(rng.integers(len(inner)))

    def summary(self) -> DatasetSummary:
        """The data set's, with the spoofed number of samples."""
        inner = summarized(self.dataset)
        return DatasetSummary(
            self.spoof_length, inner.keys, inner.num_classes, inner.class_key, inner.class_key_mapping
        )


class InterleaveDataset:
    """Batches of several data sets in turn, as `pattern` says; for a Pipeline, by itself.

    datasets: {ds_id: data set}, or a list, whose ds_ids are "0", "1", ... pattern: ds_ids or places in the list, each
    at least once; None: each in turn. An epoch has as many whole patterns as the shortest data set allows.
    """

    def __init__(self, datasets: Mapping[str, Any] | Sequence[Any], pattern: Sequence[str | int] | None = None):
        named = isinstance(datasets, Mapping)
        self.datasets = dict(datasets) if isinstance(datasets, Mapping) else {str(i): d for i, d in enumerate(datasets)}
        names: list[Any] = list(self.datasets) if named else list(range(len(self.datasets)))
        wanted = names if pattern is None else list(pattern)
        if len(names) < 2 or set(wanted) != set(names):
            raise UsageError(f"the pattern must name each of two or more data sets, got {wanted} for {names}.")
        self.pattern = [names.index(name) for name in wanted]

    def __len__(self) -> int:
        return sum(map(len, self.datasets.values()))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return CombinedDataset(list(self.datasets.values()))[index]

    def split(self, *fractions: Fraction, seed: int | None = None, stratify: str | None = None) -> Any:
        """Splits every data set as `RowsDataset.split` does, and interleaves the parts by the same pattern."""
        parts = split_each(list(self.datasets.values()), fractions, seed, stratify)
        made = []
        for part in parts:
            made.append(object.__new__(type(self)))
            made[-1].datasets, made[-1].pattern = dict(zip(self.datasets, part, strict=True)), self.pattern
        return made[0] if len(made) == 1 else made

    def summary(self) -> DatasetSummary:
        """All rows, and the keys of all data sets."""
        return joined_summary(len(self), list(self.datasets.values()))


def split_each(
    datasets: Sequence[Any], fractions: Sequence[Fraction], seed: int | None, stratify: str | None
) -> list[list[Any]]:
    """Splits each data set alike; a list of parts for each fraction. UsageError where one can't be split."""
    for data in datasets:
        if not hasattr(data, "split"):
            raise UsageError(f"a {type(data).__name__} can't be split; split the data sets before they are joined.")
    found = []
    for data in datasets:
        own = stratify if stratify in summarized(data).keys else None
        parts = data.split(*fractions, seed=seed, stratify=own)
        found.append(parts if isinstance(parts, list) else [parts])
    return [list(parts) for parts in zip(*found, strict=True)]


def joined_summary(count: int, datasets: Sequence[Any]) -> DatasetSummary:
    """A summary with the keys of all data sets."""
    return DatasetSummary(count, {key: own for data in datasets for key, own in summarized(data).keys.items()})


def refuse_patterns(name: str, datasets: Sequence[Any]) -> None:
    """Raises UsageError for data sets that have an order or a pattern of their own."""
    for data in datasets:
        if hasattr(data, "order") or hasattr(data, "pattern"):
            raise UsageError(f"{name} takes data sets of samples, got a {type(data).__name__}; put it outside instead.")
