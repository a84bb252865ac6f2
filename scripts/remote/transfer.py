"""Files to a volume and home again: only what differs, never half a file, and an interrupted transfer goes on."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runtime.errors import UsageError
from scripts.remote import status
from scripts.remote.backend import Entry, Volume

FILES, BYTES = 200, 2**30  # of one batch of an upload


def read_json(volume: Volume, path: str) -> dict[str, Any]:
    """A JSON file on a volume; {} where there is none."""
    try:
        return json.loads(b"".join(volume.read(path)))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def upload(volume: Volume, path: str, say: Callable[[str], None] = print) -> int:
    """Sends a file or folder, at the same path; only files that are missing there, of another size, or newer here.

    The list of all files goes first: a job refuses to read what is not all there. A run that was trained there stays
    as it is. Returns the number of files sent.
    """
    place = Path(path)
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file() and not _hidden(p, place))
    sizes = {"" if file == place else file.relative_to(place).as_posix(): file.stat().st_size for file in files}
    if not sizes:
        raise UsageError(f"{path} holds no files; nothing to send.")
    there = {entry.path: entry for entry in volume.entries(path)}
    if there and path.startswith("outputs/") and not read_json(volume, status.manifest_of(path)):
        return 0  # here is an older copy at best
    new = [file for file in files if _differs(file, there.get(file.as_posix()))]
    if not new:
        return 0
    sent = 0
    try:
        volume.upload({status.manifest_of(path): json.dumps({"files": sizes}).encode()})
        for batch in _batches(new):
            volume.upload({file.as_posix(): file for file in batch})
            sent += len(batch)
            say(f"{path}: {sent} of {len(new)} files sent")
    except (OSError, UsageError) as error:
        said = (
            f"{path}: {str(error).rstrip('.')} after {sent} of {len(new)} files; the same command goes on from there."
        )
        raise UsageError(said) from error
    return sent


def download(volume: Volume, run: str, folder: Path, wanted: Callable[[str], bool],
             say: Callable[[str], None] = print) -> list[str]:  # fmt: skip
    """Brings a run's files home to `folder`: those wanted (by their path in the run's folder) that differ.

    Each is written under a temporary name, checked against its size and checksum, and renamed. Returns what came.
    """
    start = f"outputs/{run}/"
    listed = read_json(volume, f"{status.folder(run)}/files.json")
    came = []
    for entry in sorted(volume.entries(start.rstrip("/")), key=lambda entry: entry.path):
        name = entry.path.removeprefix(start)
        target = folder / name
        if target.name.startswith(".") or not wanted(name) or _same(target, entry):
            continue
        if _fetch(volume, entry, target, listed.get(name)):
            came.append(name)
        else:
            say(f"warning: {name} changed while it was copied; the next sync brings it.")
    return came


def _fetch(volume: Volume, entry: Entry, target: Path, listed: list | None) -> bool:
    """Copies one file; False, and the old file stays, where it is not what was listed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    digest, size = hashlib.blake2b(digest_size=16), 0
    try:
        with temporary.open("wb") as writer:
            for block in volume.read(entry.path):
                writer.write(block)
                digest.update(block)
                size += len(block)
        if [size, digest.hexdigest()] != listed if listed else size != entry.size:
            return False
        os.utime(temporary, (entry.mtime, entry.mtime))
        temporary.replace(target)
        return True
    except FileNotFoundError:  # pruned meanwhile
        return False
    finally:
        temporary.unlink(missing_ok=True)


def _differs(file: Path, there: Entry | None) -> bool:
    found = file.stat()
    return there is None or there.size != found.st_size or there.mtime < int(found.st_mtime)


def _same(target: Path, entry: Entry) -> bool:
    found = target.stat() if target.is_file() else None
    return found is not None and found.st_size == entry.size and found.st_mtime == entry.mtime


def _batches(files: list[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for file in files:
        if batch and (len(batch) >= FILES or size + file.stat().st_size > BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.stat().st_size
    if batch:
        yield batch


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
