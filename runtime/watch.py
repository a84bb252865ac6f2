"""What a forward pass reads and makes, noted while its graph is built."""

from collections.abc import Iterator
from typing import Any


class Watch:
    """Notes of the graphs of one mode, data set and epoch (from 1).

    read, made: keys that ops took, and those that the batch and ops gave. keys: all that were there. given: those that
    traces can see. traced: whether a forward pass was built at all.
    """

    def __init__(self, epoch: int):
        self.epoch, self.traced = epoch, False
        self.read: set[str] = set()
        self.made: set[str] = set()
        self.keys: set[str] = set()
        self.given: set[str] = set()

    def over(self, data: dict[str, Any]) -> "Watched":
        """The data for an op, which notes what is read of it."""
        self.traced = True
        self.made |= set(data)
        return Watched(data, self.read)

    def ended(self, data: dict[str, Any]) -> None:
        """Notes the data after the last op."""
        self.made |= set(data)
        self.keys |= set(data)


def place(mode: str, ds_id: str, watch: Watch | None) -> str:
    """Where a message belongs: "in mode eval, data set 'a', epoch 2"."""
    where = f"in mode {mode}" + (f", data set {ds_id!r}" if ds_id else "")
    return where if watch is None else f"{where}, epoch {watch.epoch}"


class Watched(dict[str, Any]):
    """A dictionary that notes which keys are read; whoever goes through all of them has read them all."""

    def __init__(self, data: dict[str, Any], read: set[str]):
        super().__init__(data)
        self._read = read

    def __getitem__(self, key: str) -> Any:
        self._read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As a dictionary's; a key that is absent is not read."""
        return self[key] if key in self else default

    def __iter__(self) -> Iterator[str]:
        self._read.update(super().keys())
        return super().__iter__()

    def keys(self) -> Any:
        """As a dictionary's."""
        self._read.update(super().keys())
        return super().keys()

    def items(self) -> Any:
        """As a dictionary's."""
        self._read.update(super().keys())
        return super().items()

    def values(self) -> Any:
        """As a dictionary's."""
        self._read.update(super().keys())
        return super().values()

    def __or__(self, other: Any) -> Any:
        return {**self, **other}
