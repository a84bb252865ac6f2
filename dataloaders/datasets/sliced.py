"""Slices of samples as samples."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dataloaders.samples import read
from runtime.errors import UsageError
from runtime.slicers import Slicer


class SlicedDataset:
    """Every slice of every sample as a sample of its own, for training on windows or planes of large arrays.

    slicers: those that cut do, together; they see one sample's arrays, without a batch axis, and must give as many
    slices for every sample. Sample i has the rows slices * i to slices * (i + 1) - 1.
    """

    def __init__(self, dataset: Any, slicers: Slicer | Sequence[Slicer]):
        self.dataset = dataset
        self.slicers = [slicers] if isinstance(slicers, Slicer) else list(slicers)
        self.slices = len(self._cut(0, np.random.default_rng(0)))

    def _cut(self, index: int, rng: np.random.Generator) -> list[dict[str, Any]]:
        sample = read(self.dataset, index, rng)
        cut = {key: slicer.cut(np.asarray(sample[key])) for slicer in self.slicers for key in slicer.slice}
        counts = {key: len(parts) for key, parts in cut.items()}
        if len(set(counts.values())) != 1:
            raise UsageError(
                f"the slicers of a SlicedDataset must give equally many slices, got {counts or 'no keys'}."
            )
        return [{**sample, **dict(zip(cut, parts, strict=True))} for parts in zip(*cut.values(), strict=True)]

    def __len__(self) -> int:
        return len(self.dataset) * self.slices

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.sample(index, np.random.default_rng(index))

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """One slice; UsageError where its sample has more or fewer of them than the first."""
        row, place = divmod(int(index), self.slices)
        found = self._cut(row, rng)
        if len(found) != self.slices:
            raise UsageError(f"sample {row} has {len(found)} slices; needed: {self.slices}, as the first sample has.")
        return found[place]

    def joined(self, key: str, values: np.ndarray) -> list[np.ndarray]:
        """One whole a sample, from the values (rows, ...) of all slices in their order, put together as `key` is."""
        slicer = next((own for own in self.slicers if key in own.unslice), None)
        if slicer is None or len(values) != len(self):
            raise UsageError(
                f"joined needs a key that a slicer unslices and {len(self)} values, got {key!r} and {len(values)}."
            )
        rng, wholes = np.random.default_rng(0), []
        for row in range(len(self.dataset)):
            shape = np.shape(read(self.dataset, row, rng)[slicer.slice[0]]) if slicer.slice else None
            wholes.append(slicer.join(list(values[row * self.slices : (row + 1) * self.slices]), shape))
        return wholes
