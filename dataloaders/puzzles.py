"""Puzzles of one size as tokens: each row a question, its answer and the number of the puzzle it belongs to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from dataloaders.puzzle_files import FIELDS, load
from dataloaders.source import Source, digest
from domains import maze, sudoku
from domains.puzzles import IGNORED
from runtime.errors import UsageError
from runtime.op import NumpyBatch

FINGERPRINT_ROWS = 4096
Augmentation = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
AUGMENTATIONS: dict[str, Augmentation] = {"sudoku": sudoku.augmented, "maze": maze.augmented}


class Puzzles(Source):
    """The puzzles of `folder`/`split` (dataloaders/puzzle_files.py), tokens as they are stored.

    A row: "x" (S,) int32; "label" (S,) int32, -100 where it is not judged; "puzzle" () int32, the identifier. shape is
    (S,), classes the vocabulary, identifiers how many there are, names what they are called; sets (N,) names the
    collection that each row of split "test" is from, None where the files don't say.

    split "train": a pass takes a random puzzle of every group, with all its examples (as many as the group's smallest
    puzzle has), each group once; an epoch is `passes` passes one after the other, so that fewer rows are lost to the
    last, short batch (with one pass, as many as do not fill a batch). split "test": all rows in order.
    augment: "sudoku" or "maze" draws a symmetry anew for every row each time. build: arguments of
    scripts/build_puzzles.py that make this data, for the error where it is missing.
    """

    def __init__(
        self,
        folder: str,
        split: Literal["train", "test"] = "train",
        augment: str | None = None,
        passes: int = 1,
        build: str = "sudoku FILE",
    ):
        if split not in ("train", "test") or passes < 1:
            raise UsageError(f"Puzzles needs split train or test and passes from 1, got {split!r} and {passes}.")
        if augment is not None and augment not in AUGMENTATIONS:
            raise UsageError(f"augment must be null or one of {', '.join(AUGMENTATIONS)}, got {augment!r}.")
        place = Path(folder) / split
        if not (place / "dataset.json").exists():
            raise UsageError(f"there are no puzzles in {place}; python scripts/build_puzzles.py {build} out={folder} "
                             "makes them.")  # fmt: skip
        meta, arrays = load(place)
        self.folder, self.split, self.augment, self.passes = folder, split, augment, passes
        self.inputs, self.labels, self._own, self._puzzles, self._groups = (arrays[key] for key in FIELDS)
        self.shape, self.classes = (int(meta["seq_len"]),), int(meta["vocab_size"])
        self.sets: np.ndarray | None = arrays.get("sets")
        self.identifiers, self._ignored = int(meta["num_puzzle_identifiers"]), meta["ignore_label_id"]
        self._sizes = np.diff(self._puzzles)
        self._least = np.minimum.reduceat(self._sizes, self._groups[:-1])  # examples of each group's smallest puzzle
        highest = max(int(part[self._spread].max()) for part in (self.inputs, self.labels))
        if highest >= self.classes:
            raise UsageError(f"{place}: tokens must be below vocab_size={self.classes}, got {highest}.")
        self.take(np.arange(1), np.random.default_rng(0))  # an augmentation refuses here what it can't take

    @property
    def names(self) -> list[str]:
        """What the identifiers are called; [] where there is no identifiers.json."""
        file = Path(self.folder) / "identifiers.json"
        return json.loads(file.read_text()) if file.exists() else []

    @property
    def _spread(self) -> np.ndarray:
        """Rows (n,) all over the data: reading every one of a large set takes too long."""
        return np.unique(np.linspace(0, len(self.inputs) - 1, FINGERPRINT_ROWS).astype(np.int64))

    def __len__(self) -> int:
        return int(self._least.sum()) * self.passes if self.split == "train" else len(self.inputs)

    def order(self, rng: np.random.Generator | None) -> np.ndarray:
        """The rows (len,) of an epoch; without an `rng` the groups' first puzzles in order, for "test" all rows."""
        if self.split == "test":
            return np.arange(len(self)) if rng is None else rng.permutation(len(self))
        return np.concatenate([self._pass(rng) for _ in range(self.passes)])

    def _pass(self, rng: np.random.Generator | None) -> np.ndarray:
        groups = np.arange(len(self._least)) if rng is None else rng.permutation(len(self._least))
        first, end = self._groups[groups], self._groups[groups + 1]
        puzzles = first if rng is None else rng.integers(first, end)
        starts, sizes, least = self._puzzles[puzzles], self._sizes[puzzles], self._least[groups]
        if (sizes == 1).all():
            return starts.astype(np.int64)
        return np.concatenate(
            [
                start + (np.arange(take) if rng is None else rng.permutation(size)[:take])
                for start, size, take in zip(starts, sizes, least, strict=True)
            ]
        )

    def take(self, indices: np.ndarray, rng: np.random.Generator) -> NumpyBatch:
        """The rows, augmented: "x" and "label" (n, S), "puzzle" (n,), int32."""
        x, label = self.inputs[indices], self.labels[indices]
        if self.augment is not None:
            x, label = AUGMENTATIONS[self.augment](x, label, rng)
        label = label.astype(np.int32)
        if self._ignored is not None:
            label[label == self._ignored] = IGNORED
        return {"x": x.astype(np.int32), "label": label, "puzzle": self.identifier(indices)}

    def identifier(self, indices: np.ndarray) -> np.ndarray:
        """The identifiers (n,) int32 of rows."""
        return self._own[np.searchsorted(self._puzzles, indices, side="right") - 1].astype(np.int32)

    def fingerprint(self) -> str:
        """A hash of the settings and of at most 4096 evenly spaced rows."""
        rows = self._spread
        parts = (self.inputs[rows], self.labels[rows], self._own, self._puzzles, self._groups)
        settings = (self.split, self.augment, self.passes, self.inputs.shape, self.classes)
        return digest("puzzles", settings, *(np.asarray(part, np.int64).tobytes() for part in parts))
