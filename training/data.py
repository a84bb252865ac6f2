"""What the loop hands to traces: the values of one event, and a place to leave values for later traces."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError


class MissingKey(UsageError, KeyError):
    """A trace asked for a key that its event does not have."""

    __str__ = UsageError.__str__


class Data(Mapping[str, Any]):
    """The keys of one event, read like a dictionary.

    on_batch_end: the losses, what the updates report and the keys that traces declare as inputs (in evaluation only
    real rows). on_epoch_end of an evaluation: its losses by their plain names. To these come what earlier traces wrote
    in the same event. mode, ds_id: of the event ("" where the mode's data set has no name, and where the event belongs
    to all of them). written: what traces wrote.
    """

    def __init__(self, values: Mapping[str, Any] | None = None, mode: str = "train", ds_id: str = "",
                 log: Callable[..., None] | None = None):  # fmt: skip
        self._values, self.mode, self.ds_id, self._log = dict(values or {}), mode, ds_id, log
        self.written: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            has = ", ".join(sorted(self._values)) or "no keys"
            raise MissingKey(f"there is no {key!r} in mode {self.mode}; this event has {has}.")
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def write_with_log(self, key: str, value: Any) -> None:
        """Leaves a value for later traces and logs it as "<mode>/<key>" ("<mode>/<key>|<ds_id>" for one data set)."""
        self.write_without_log(key, value)
        if self._log is not None:
            name = f"{self.mode}/{key}"
            self._log(**{f"{name}|{self.ds_id}" if self.ds_id else name: plain(value)})

    def __setitem__(self, key: str, value: Any) -> None:
        self.write_without_log(key, value)

    def write_without_log(self, key: str, value: Any) -> None:
        """Leaves a value for later traces only."""
        self._values[key] = self.written[key] = value


def as_numpy(value: Any) -> np.ndarray:
    """An MLX array as NumPy of its shape (bfloat16 as float32); others through np.array."""
    return np.array(value.astype(mx.float32) if isinstance(value, mx.array) and value.dtype == mx.bfloat16 else value)


def plain(value: Any) -> Any:
    """An array of one element as a Python number, of several (or none) as nested lists; anything else as it is."""
    if isinstance(value, mx.array | np.ndarray | np.generic):
        return value.item() if value.size == 1 else value.tolist()
    return value


def one_number(data: Mapping[str, Any], key: str) -> float:
    """The value of a key that must be one number, NaN and infinity among them; UsageError for anything else."""
    value = plain(data[key])
    if not isinstance(value, int | float):
        kind = f"an array of shape {np.shape(value)}" if isinstance(value, list) else repr(value)
        raise UsageError(f"{key!r} must be one number to be compared, got {kind}.")
    return float(value)


def real_rows(values: Mapping[str, Any], mask: np.ndarray | None) -> dict[str, Any]:
    """The values without the rows whose mask (B,) is 0; what has no B rows stays as it is."""
    if mask is None or mask.all():
        return dict(values)
    rows = np.flatnonzero(mask)
    return {name: _taken(value, rows, len(mask)) for name, value in values.items()}


def _taken(value: Any, rows: np.ndarray, count: int) -> Any:
    if getattr(value, "ndim", 0) == 0 or len(value) != count:
        return value
    return value[mx.array(rows)] if isinstance(value, mx.array) else value[rows]
