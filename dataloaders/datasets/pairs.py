"""Pairs of labelled samples, to learn what is alike, and one-shot trials, to see whether it was learned."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dataloaders.datasets.rows import RowsDataset
from dataloaders.source import digest
from runtime.errors import UsageError


class PairsDataset:
    """{left_key, right_key, label_key}: each row as left element once an epoch, with one of its class (1) or not (0).

    data: rows with `data_key` and the class number `class_key`. classes: those whose rows take part, None for all.
    percent_matching_data: probability of label 1. The pipeline draws the right element from its own generator;
    `data[i]` is always the same pair. Raises UsageError without two classes of two rows at least.
    """

    def __init__(self, data: RowsDataset, classes: Sequence[int] | None = None, data_key: str = "x",
                 class_key: str = "y", left_key: str = "x_a", right_key: str = "x_b", label_key: str = "y",
                 percent_matching_data: float = 0.5):  # fmt: skip
        if not 0 <= percent_matching_data <= 1:
            raise UsageError(f"percent_matching_data must lie in 0..1, got {percent_matching_data}.")
        self.left, self.right, self.label, self.matching = left_key, right_key, label_key, percent_matching_data
        self.samples, self.by_class, self.kinds = rows_of(data, data_key, class_key, classes)
        self.kept = np.sort(np.concatenate(self.by_class))

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.sample(index, np.random.default_rng(index))

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """A pair whose left element is row `index` of those that take part."""
        row, match = self.kept[index], bool(rng.random() < self.matching)
        kind = next(k for k, rows in enumerate(self.by_class) if self.kinds[row] == self.kinds[rows[0]])
        if match:
            rows = self.by_class[kind]
            other = rows[(np.searchsorted(rows, row) + rng.integers(1, len(rows))) % len(rows)]
        else:
            rows = self.by_class[(kind + rng.integers(1, len(self.by_class))) % len(self.by_class)]
            other = rng.choice(rows)
        return {self.left: self.samples[row], self.right: self.samples[other], self.label: np.int32(match)}

    def fingerprint(self) -> str:
        """A short hash of the samples that take part and of how they are paired."""
        return digest("PairsDataset", self.matching, self.samples[self.kept].tobytes(), self.kinds[self.kept].tobytes())


class OneShotTrials:
    """`trials` questions "which of these shows what this one shows?", `ways` pairs each, in the order of the rows.

    The left element is the same in all pairs of a trial; the right ones are of different classes, one of them of its
    own (label 1), at a random place. data, classes and keys as PairsDataset has them. Drawn once, from `seed`.
    """

    def __init__(self, data: RowsDataset, trials: int, ways: int, classes: Sequence[int] | None = None, seed: int = 0,
                 data_key: str = "x", class_key: str = "y", left_key: str = "x_a", right_key: str = "x_b",
                 label_key: str = "y"):  # fmt: skip
        self.left, self.right, self.label = left_key, right_key, label_key
        self.samples, by_class, _ = rows_of(data, data_key, class_key, classes)
        if trials < 1 or not 2 <= ways <= len(by_class):
            raise UsageError(f"OneShotTrials needs trials of at least 1 and ways in 2..{len(by_class)}, got {trials} "
                             f"and {ways}.")  # fmt: skip
        rng, self.pairs = np.random.default_rng(seed), []
        for _ in range(trials):
            kinds, right = rng.choice(len(by_class), ways, replace=False), rng.integers(ways)
            question, answer = rng.choice(by_class[kinds[right]], 2, replace=False)
            for place, kind in enumerate(kinds):
                shown = answer if place == right else rng.choice(by_class[kind])
                self.pairs.append((int(question), int(shown), int(place == right)))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        left, right, match = self.pairs[index]
        return {self.left: self.samples[left], self.right: self.samples[right], self.label: np.int32(match)}

    def fingerprint(self) -> str:
        """A short hash of samples and trials."""
        return digest("OneShotTrials", self.pairs, self.samples.tobytes())


def rows_of(
    data: RowsDataset, data_key: str, class_key: str, classes: Sequence[int] | None
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Samples (N, ...), the rows of each class asked for, and all class numbers (N,); UsageError for too few."""
    samples, kinds = np.asarray(data[data_key]), np.asarray(data[class_key])
    wanted = np.unique(kinds) if classes is None else np.asarray(classes)
    by_class = [np.flatnonzero(kinds == kind) for kind in wanted]
    counts = [len(rows) for rows in by_class]
    if len(counts) < 2 or min(counts) < 2:
        raise UsageError(f"pairs need two classes of two rows at least, got {counts} rows by class.")
    return samples, by_class, kinds
