"""File names in folders, labelled by folder, or in pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.datasets.rows import RowsDataset
from dataloaders.datasets.summary import DatasetSummary, sample_summary
from runtime.errors import UsageError


def files_in(root: str, extension: str | None, recursive: bool = True) -> list[Path]:
    """The files under a folder, sorted, hidden ones left out; UsageError for a missing or empty folder."""
    folder = Path(root)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder.absolute()}.")
    found = folder.rglob("*") if recursive else folder.glob("*")
    kept = sorted(p for p in found if p.is_file() and not p.name.startswith(".") and p.name.endswith(extension or ""))
    if not kept:
        raise UsageError(f"{folder.absolute()} has no files{f' that end in {extension}' if extension else ''}.")
    return kept


class DirDataset(RowsDataset):
    """{data_key: path} of every file in a folder."""

    def __init__(
        self, root_dir: str, data_key: str = "x", file_extension: str | None = None, recursive_search: bool = True
    ):
        super().__init__({data_key: [str(path) for path in files_in(root_dir, file_extension, recursive_search)]})


class LabeledDirDataset(RowsDataset):
    """{data_key: path, label_key: label} of the files in root/class/; labels number the sorted class folders.

    label_mapping: {folder relative to the root: label} instead. mapping: the one used.
    """

    def __init__(
        self,
        root_dir: str,
        data_key: str = "x",
        label_key: str = "y",
        label_mapping: Mapping[str, Any] | None = None,
        file_extension: str | None = None,
    ):
        paths = files_in(root_dir, file_extension)
        names = [path.parent.relative_to(root_dir).as_posix() for path in paths]
        self.mapping = dict(label_mapping or {name: i for i, name in enumerate(sorted(set(names)))})
        if lacks := sorted(set(names) - set(self.mapping)):
            raise UsageError(f"label_mapping lacks the folders {', '.join(lacks)}; it has {', '.join(self.mapping)}.")
        super().__init__({data_key: [str(path) for path in paths], label_key: [self.mapping[name] for name in names]})
        self.label_key = label_key


class TextDirDataset(LabeledDirDataset):
    """{data_key: text, label_key: label} of the text files in root/class/, as LabeledDirDataset labels them.

    Texts are read when they are asked for.
    """

    def __init__(
        self,
        root_dir: str,
        data_key: str = "x",
        label_key: str = "y",
        label_mapping: Mapping[str, Any] | None = None,
        file_extension: str | None = ".txt",
        encoding: str = "utf-8",
    ):
        super().__init__(root_dir, data_key, label_key, label_mapping, file_extension)
        self.data_key, self.encoding = data_key, encoding

    def __getitem__(self, index: int | str) -> Any:
        found = super().__getitem__(index)
        if isinstance(index, str):
            return [self._text(path) for path in found] if index == self.data_key else found
        return {**found, self.data_key: self._text(found[self.data_key])}

    def _text(self, path: str) -> str:
        try:
            return Path(path).read_text(self.encoding)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is no readable text in {self.encoding} ({error}).") from error


class SiameseDirDataset(LabeledDirDataset):
    """Pairs: each file as left element once an epoch, with one of its class (label 1) or of another (label 0).

    percent_matching_data: probability of label 1. The pipeline draws the right element from its own generator;
    `data[i]` is always the same pair.
    """

    def __init__(
        self,
        root_dir: str,
        data_key_left: str = "x_a",
        data_key_right: str = "x_b",
        label_key: str = "y",
        percent_matching_data: float = 0.5,
        file_extension: str | None = None,
    ):
        if not 0 <= percent_matching_data <= 1:
            raise UsageError(f"percent_matching_data must lie in 0..1, got {percent_matching_data}.")
        super().__init__(root_dir, data_key_left, label_key, None, file_extension)
        self.left, self.right, self.matching = data_key_left, data_key_right, percent_matching_data
        counts = np.bincount(np.array(self[label_key]))
        if len(counts) < 2 or counts.min() < 2:
            raise UsageError(f"pairs need two classes of two files at least, got {counts.tolist()} files by class.")

    def __getitem__(self, index: int | str) -> Any:
        return (
            super().__getitem__(index) if isinstance(index, str) else self.sample(index, np.random.default_rng(index))
        )

    def summary(self) -> DatasetSummary:
        """Of pairs; `num_classes` counts the folders."""
        return DatasetSummary(len(self), sample_summary(self[0]), len(self.mapping))

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """A pair whose left element is row `index`."""
        labels, match = np.array(self[self.label_key]), bool(rng.random() < self.matching)
        others = np.flatnonzero((labels == labels[index]) == match)
        others = others[others != index]
        if not len(others):
            raise UsageError("this part of the pairs has a class of one file, or one class; split it otherwise.")
        names = self.data[self.left]
        right = names[self.rows[int(rng.choice(others))]]
        return {self.left: names[self.rows[index]], self.right: right, self.label_key: int(match)}
