"""Rows of a CSV file."""

import csv
from pathlib import Path

import numpy as np

from dataloaders.datasets.rows import RowsDataset
from runtime.errors import UsageError


class CSVDataset(RowsDataset):
    """A CSV file whose first row names the columns; whole-number columns are int64, numeric ones float32, others str.

    UTF-8. An empty field of a numeric column is NaN, empty lines are left out. `parent_path` is the file's folder, for
    relative paths in it.
    """

    def __init__(self, file_path: str, delimiter: str = ","):
        path = Path(file_path)
        if not path.is_file():
            raise UsageError(f"CSVDataset: there is no file {path.absolute()}.")
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin their files with a mark
                header, *lines = list(csv.reader(file, delimiter=delimiter)) or [[]]
        except UnicodeDecodeError as error:
            raise UsageError(f"CSVDataset: {path} is no UTF-8 text ({error}); needed: UTF-8.") from error
        if twice := [name for name in header if header.count(name) > 1]:
            raise UsageError(f"CSVDataset: {path} has several columns {twice[0]!r}; needed: a name for each.")
        for number, row in enumerate(lines, 2):
            if row and len(row) != len(header):
                raise UsageError(f"{path}, row {number}: {len(row)} fields; needed: {len(header)}, as the header has.")
        rows = [row for row in lines if row]
        if not rows:
            raise UsageError(f"CSVDataset: {path} has no rows; needed: a header and one row at least.")
        super().__init__({name: typed([row[i] for row in rows]) for i, name in enumerate(header)})
        self.parent_path = str(path.parent)


def typed(words: list[str]) -> np.ndarray:
    """A column (n,) as int64 or else float32, where all of its words are such numbers, else as strings."""
    try:
        return np.array([int(word) for word in words], np.int64)
    except ValueError:
        pass
    try:
        return np.array([float(word or "nan") for word in words], np.float32)
    except ValueError:
        return np.array(words)
