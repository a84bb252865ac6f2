"""A run's folder on a container's disk and its copy on the volume, kept equal in an order that a kill can't harm.

Runs don't write to the volume itself: it has no locks between containers, an open file blocks a reload, and what is
half written may be committed in the background.
"""

import hashlib
import shutil
from pathlib import Path

LAST = "checkpoints"  # copied after the record: rows beyond a checkpoint are dropped on resume, missing ones are lost


class Mirror:
    """Copies `disk` to `volume` (`save`) and back (`restore`)."""

    def __init__(self, disk: Path, volume: Path):
        self.disk, self.volume = disk, volume
        self._known: dict[str, tuple[int, int]] = {}  # what the volume has: size and time of the file on disk
        self.digests: dict[str, list] = {}  # path: [size, BLAKE2 digest] of the volume's files

    def restore(self) -> None:
        """Brings the volume's files to the disk; removes halves of files that a kill has left."""
        for path in self.volume.rglob(".*.part"):
            path.unlink()
        for name in _files(self.volume):
            self.digests[name] = _copy(self.volume / name, self.disk / name)
            self._known[name] = _stamp(self.disk / name)

    def save(self) -> None:
        """Makes the volume's files those of the disk: each appears whole, checkpoints come last, then removals."""
        names = _files(self.disk)
        for name in sorted(names, key=lambda name: (name.startswith(f"{LAST}/"), name)):
            try:
                stamp = _stamp(self.disk / name)
                if self._known.get(name) != stamp:
                    self.digests[name] = _copy(self.disk / name, self.volume / name)
                    self._known[name] = stamp
            except FileNotFoundError:  # pruned while we copied
                continue
        for name in set(_files(self.volume)) - set(names):
            (self.volume / name).unlink()
            self._known.pop(name, None)
            self.digests.pop(name, None)


def _files(folder: Path) -> list[str]:
    """Files below a folder, but no hidden and temporary ones."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".tmp", ".part")]
    names = [path.relative_to(folder) for path in paths]
    return sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _copy(source: Path, target: Path) -> list:
    """Copies a file under a temporary name and renames it; its size and digest."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    digest, size = hashlib.blake2b(digest_size=16), 0
    with source.open("rb") as reader, temporary.open("wb") as writer:
        while block := reader.read(2**22):
            writer.write(block)
            digest.update(block)
            size += len(block)
    shutil.copystat(source, temporary)
    temporary.replace(target)
    return [size, digest.hexdigest()]
