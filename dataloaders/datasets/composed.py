"""Data sets made of data sets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtime.errors import UsageError


class CombinedDataset:
    """Data sets one after another, all with the same keys."""

    def __init__(self, datasets: Sequence[Any]):
        self.datasets = list(datasets)
        keys = [set(data[0]) for data in self.datasets]
        if len(keys) < 2 or any(own != keys[0] for own in keys):
            raise UsageError(f"CombinedDataset needs data sets with the same keys, got {[sorted(k) for k in keys]}.")
        self.ends = np.cumsum([len(data) for data in self.datasets])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self.ends, index, side="right"))
        return self.datasets[which][int(index - (self.ends[which - 1] if which else 0))]


class ExtendDataset:
    """A data set whose epoch has `spoof_length` samples: all of it as often as that takes, then a random rest."""

    def __init__(self, dataset: Any, spoof_length: int):
        if spoof_length < 1:
            raise UsageError(f"spoof_length must be at least 1, got {spoof_length}.")
        self.dataset, self.spoof_length = dataset, spoof_length

    def __len__(self) -> int:
        return self.spoof_length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.dataset[int(index) % len(self.dataset)]

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """The rows of one epoch (spoof_length,)."""
        rounds = -(-self.spoof_length // len(self.dataset))
        return np.concatenate([rng.permutation(len(self.dataset)) for _ in range(rounds)])[: self.spoof_length]


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
