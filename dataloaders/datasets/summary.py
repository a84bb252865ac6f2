"""What is in a data set: how many samples, and each key's type, shape and number of different values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dataloaders.samples import read
from dataloaders.source import Source


@dataclass(frozen=True)
class KeySummary:
    """A key: NumPy type, shape of one sample (None for an axis whose length differs), different values if counted."""

    dtype: str
    shape: tuple[int | None, ...] = ()
    num_unique_values: int | None = None


@dataclass(frozen=True)
class DatasetSummary:
    """A data set in numbers; class_key_mapping: label of each class by the name it has on disk."""

    num_instances: int
    keys: dict[str, KeySummary] = field(default_factory=dict)
    num_classes: int | None = None
    class_key: str | None = None
    class_key_mapping: dict[str, Any] | None = None

    def __str__(self) -> str:
        return str({name: value for name, value in asdict(self).items() if value is not None})


def column_summary(values: Any) -> KeySummary:
    """Of a column: an array (n, ...) or a list of n values."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return KeySummary(str(values.dtype), values.shape[1:], len(np.unique(values)) if values.ndim == 1 else None)
    arrays = [np.asarray(value) for value in values]
    ranks = {array.ndim for array in arrays}
    sides = zip(*(array.shape for array in arrays), strict=True) if len(ranks) == 1 else ()
    shape = tuple(lengths[0] if len(set(lengths)) == 1 else None for lengths in sides)
    dtype = "str" if arrays[0].dtype.kind in "US" else str(np.result_type(*{array.dtype for array in arrays}))
    return KeySummary(dtype, shape, len({array.item() for array in arrays}) if ranks == {0} else None)


def sample_summary(sample: Mapping[str, Any]) -> dict[str, KeySummary]:
    """Of one sample's keys, in whose place others are taken to be the same."""
    kinds = {key: np.asarray(value) for key, value in sample.items()}
    return {k: KeySummary("str" if a.dtype.kind in "US" else str(a.dtype), a.shape) for k, a in kinds.items()}


def summarized(data: Any) -> DatasetSummary:
    """A data set's own summary, or else one of its length and first sample."""
    if hasattr(data, "summary"):
        return data.summary()
    keys = sample_summary(read(data, 0, np.random.default_rng(0)))
    classes = data.classes if isinstance(data, Source) else 0
    return DatasetSummary(len(data), keys, classes or None, "label" if classes else None)
