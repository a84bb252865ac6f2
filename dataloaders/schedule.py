"""Which data set each step of an epoch reads, where a mode has several."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dataloaders.samples import as_sample
from dataloaders.source import digest
from runtime.errors import UsageError

FINGERPRINT_ROWS = 16


class Schedule:
    """The data sets of a mode by name, and the order of their batches in an epoch.

    One after the other, or as an InterleaveDataset's pattern says. `arrange` comes before everything else.
    """

    def __init__(self, given: Any, mode: str):
        self.pattern: Sequence[int] | None = getattr(given, "pattern", None)
        if self.pattern is not None:
            given = given.datasets
        self.data: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"": given}
        for ds_id, data in self.data.items():
            if not (hasattr(data, "__len__") and (hasattr(data, "take") or hasattr(data, "__getitem__"))):
                raise UsageError(
                    f"the {mode} data {ds_id!r} is a {type(data).__name__}; needed: a data set with len and [i], or a "
                    "dictionary of such by name."
                )
            if hasattr(data, "pattern"):
                raise UsageError("an InterleaveDataset can't stand inside a dictionary of data sets; give it alone.")
            if len(data) == 0:
                raise UsageError(f"the {mode} data {ds_id!r} is empty; needed: one sample at least.")

    def arrange(self, steps: Sequence[int]) -> None:
        """Sets the order, from how many batches each data set has in a pass."""
        if self.pattern is None:
            which = np.repeat(np.arange(len(steps)), steps)
        else:
            rounds = min(n // self.pattern.count(i) for i, n in enumerate(steps))
            which = np.tile(np.asarray(self.pattern, np.int64), rounds)
        self.which, self.names = which, list(self.data)
        self.counts = np.bincount(which, minlength=len(steps))
        self.local = np.zeros(len(which), np.int64)
        for i, n in enumerate(self.counts):
            self.local[which == i] = np.arange(n)

    @property
    def steps(self) -> int:
        """Batches in an epoch, of all data sets together."""
        return len(self.which)

    def place(self, number: int) -> tuple[str, int]:
        """The data set of batch `number`, counted over all epochs, and the batch's number within that set."""
        if len(self.names) == 1:
            return self.names[0], number
        epoch, step = divmod(number, len(self.which))
        index = int(self.which[step])
        return self.names[index], epoch * int(self.counts[index]) + int(self.local[step])

    def fingerprint(self) -> str:
        """A short hash: of one unnamed data set its own."""
        prints = {ds_id: fingerprint(data) for ds_id, data in self.data.items()}
        return prints[""] if list(prints) == [""] else digest(prints)


def fingerprint(data: Any) -> str:
    """A data set's own hash, or else one of its type, its length and 16 evenly spaced samples."""
    if hasattr(data, "fingerprint"):
        return data.fingerprint()
    rows = np.unique(np.linspace(0, len(data) - 1, FINGERPRINT_ROWS).astype(np.int64))
    parts = [(key, np.asarray(value)) for row in rows for key, value in as_sample(data[int(row)], data, row).items()]
    return digest(type(data).__name__, len(data), *((key, a.shape, a.tobytes()) for key, a in parts))
