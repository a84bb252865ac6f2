"""Data sets held as columns, with FastEstimator's `split`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dataloaders.datasets.summary import DatasetSummary, column_summary
from dataloaders.source import digest
from runtime.errors import UsageError

Fraction = float | int | Sequence[int]


class RowsDataset:
    """Samples as rows of columns with one length: `data[i]` is a dictionary, `data["key"]` a column."""

    def __init__(self, data: Mapping[str, Sequence[Any] | np.ndarray]):
        lengths = {key: len(value) for key, value in data.items()}
        if len(set(lengths.values())) != 1:
            raise UsageError(f"{type(self).__name__}: columns must have one length, got {lengths}.")
        self.data = dict(data)
        self.rows = np.arange(next(iter(lengths.values())))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | str) -> Any:
        if isinstance(index, str):
            if index not in self.data:
                raise UsageError(f"{type(self).__name__} has no column {index!r}; it has {', '.join(self.data)}.")
            column = self.data[index]
            return column[self.rows] if isinstance(column, np.ndarray) else [column[int(row)] for row in self.rows]
        row = int(self.rows[index])
        return {key: value[row] for key, value in self.data.items()}

    def __setitem__(self, key: str, column: Sequence[Any] | np.ndarray) -> None:
        """Replaces or adds a column (n, ...) of this data set; parts that `split` made keep theirs."""
        if len(column) != len(self):
            raise UsageError(f"the column {key!r} has {len(column)} values; needed: {len(self)}, one a sample.")
        self.data = {own: self[own] for own in self.data if own != key} | {key: column}
        self.rows = np.arange(len(self))

    def split(self, *fractions: Fraction, seed: int | None = None, stratify: str | None = None) -> Any:
        """Moves rows out into new data sets: one for one fraction, else a list, and keeps the rest.

        A float is a share of the present length, rounded up, an int a count, a sequence the rows. seed: None takes
        evenly spaced rows. stratify: the column whose values keep their shares in each part (largest remainders).
        """
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        free, parts = list(order), []
        for fraction in fractions:
            if isinstance(fraction, Sequence | np.ndarray | range):
                chosen = [int(row) for row in fraction]
            else:
                count = math.ceil(fraction * len(self)) if isinstance(fraction, float) else fraction
                if not 0 < count <= len(free):
                    raise UsageError(f"split({fraction}) asks {count} rows; needed: 1 to {len(free)} that are left.")
                chosen = self._chosen(free, count, stratify)
            gone = set(chosen)
            if len(gone) != len(chosen) or not gone <= set(free):
                raise UsageError(f"split: rows must be different, and in 0..{len(self) - 1} and not yet taken.")
            free, parts = [row for row in free if row not in gone], [*parts, chosen]
        made = [self._part(self.rows[np.array(part, np.int64)]) for part in parts]
        self.rows = self.rows[np.sort(np.array(free, np.int64))]
        return made[0] if len(made) == 1 else made

    def _chosen(self, free: list, count: int, stratify: str | None) -> list:
        if stratify is None:
            return [free[i] for i in np.linspace(0, len(free), count, endpoint=False).astype(np.int64)]
        labels = np.asarray(self[stratify])[np.array(free, np.int64)]
        values, sizes = np.unique(labels, return_counts=True)
        exact = sizes * count / len(free)
        each = exact.astype(np.int64)
        each[np.argsort(each - exact, kind="stable")[: count - each.sum()]] += 1
        picked = [np.flatnonzero(labels == value)[:n] for value, n in zip(values, each, strict=True)]
        return [free[i] for i in np.concatenate(picked)]

    def _part(self, rows: np.ndarray) -> "RowsDataset":
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__, rows=rows)
        return part

    def summary(self) -> DatasetSummary:
        """Of all columns as they are held; `label_key` and `mapping`, where it has them, say what the classes are."""
        mapping, key = getattr(self, "mapping", None), getattr(self, "label_key", None)
        keys = {name: column_summary(RowsDataset.__getitem__(self, name)) for name in self.data}
        return DatasetSummary(len(self), keys, None if mapping is None else len(set(mapping.values())), key, mapping)

    def fingerprint(self) -> str:
        """A short hash of rows and columns."""
        columns = [(key, np.asarray(self[key])) for key in self.data]
        return digest(type(self).__name__, *((key, str(c.dtype), c.shape, c.tobytes()) for key, c in columns))


class NumpyDataset(RowsDataset):
    """Arrays or lists of one length by key."""
