"""What sending runs away needs of a provider; modal_backend.py has Modal's, the tests have one of folders."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Entry:
    """A file on a volume. path: from the volume's root, without a leading slash. mtime: seconds since 1970."""

    path: str
    size: int
    mtime: float


@dataclass(frozen=True)
class Call:
    """A call that was sent. page: where a browser shows it."""

    id: str
    page: str


class Volume(Protocol):
    """Files that last, seen from outside of containers: what was committed."""

    def entries(self, path: str) -> list[Entry]:
        """Every file below a folder, or the file itself; [] where there is none."""
        ...

    def read(self, path: str) -> Iterator[bytes]:
        """A file's contents; raises FileNotFoundError."""
        ...

    def upload(self, files: dict[str, Path | bytes]) -> None:
        """Writes files, given by their path on the volume; all of them are there when this returns."""
        ...


class Calls(Protocol):
    """Calls of the function that a specification (spec.py) describes."""

    def spawn(self, spec: dict[str, Any], detach: bool, told: Callable[[Call], None]) -> dict[str, Any] | None:
        """Sends the call; `told(call)` runs as soon as it has an id. Its result, or None if detach or Ctrl-C."""
        ...

    def cancel(self, call: str) -> None:
        """Stops a call and its retries; the function may save first."""
        ...

    def logs(self, call: str) -> Iterator[str]:
        """What the call has printed and prints, until it ends."""
        ...


class Container(Protocol):
    """The volume from inside of a container, where it is mounted as a folder."""

    call: str

    def reload(self) -> None:
        """Shows what others have committed."""
        ...

    def commit(self) -> None:
        """Makes what was written last."""
        ...


class Provider(Protocol):
    """Who lends machines and volumes."""

    @property
    def calls(self) -> Calls:
        """Calls of functions there."""
        ...

    def volume(self, name: str) -> Volume:
        """The volume of a name, made where there is none."""
        ...
