"""Rows of a pickle."""

from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.datasets.rows import RowsDataset
from dataloaders.pickles import Refused, read_pickle
from runtime.errors import UsageError


class PickleDataset(RowsDataset):
    """A pickled pandas frame, {key: column} or list of {key: value}, one a sample; the frame's index is left out.

    The file is read as data: UsageError names any class or function that it asks for beside NumPy's arrays and a
    frame's own parts, and nothing of it runs. `parent_path` is the file's folder, for relative paths in it.
    """

    def __init__(self, file_path: str):
        path = Path(file_path)
        if not path.is_file():
            raise UsageError(f"PickleDataset: there is no file {path.absolute()}.")
        try:
            found = read_pickle(path.read_bytes())
        except Refused as error:
            raise UsageError(
                f"PickleDataset does not read {path}: {error}; needed: numbers, strings, NumPy arrays or a pandas "
                "frame of them (write others as CSV)."
            ) from error
        except Exception as error:  # damaged bytes raise nearly anything
            raise UsageError(f"PickleDataset: {path} is no whole pickle of data ({error}).") from error
        super().__init__(columns(found, path))
        self.parent_path = str(path.parent)


def columns(found: Any, path: Path) -> dict[str, Any]:
    """What a pickle held, as columns."""
    if (
        isinstance(found, list)
        and found
        and all(isinstance(row, dict) and row.keys() == found[0].keys() for row in found)
    ):
        found = {key: [row[key] for row in found] for key in found[0]}
    if not (isinstance(found, dict) and found and all(isinstance(k, str) and is_column(v) for k, v in found.items())):
        raise UsageError(
            f"PickleDataset: {path} holds a {type(found).__name__}; needed: a pandas frame, columns by name (strings), "
            "or a list of samples with the same keys."
        )
    return found


def is_column(value: Any) -> bool:
    """Whether a value has one entry a sample."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)
