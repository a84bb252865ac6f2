"""One safetensors file per checkpoint: written atomically, checked on reading, everything needed to go on inside."""

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from runtime.errors import UsageError

FORMAT = "mlx-lab-1"


class CorruptCheckpoint(UsageError):
    """A checkpoint file that is cut short, changed or not one of ours."""


def save(path: Path, arrays: dict[str, mx.array], meta: dict[str, Any]) -> None:
    """Writes arrays and JSON-able metadata to `path` so that it appears whole or not at all.

    Raises OSError where the disk is full or the folder can't be written; an older file of that name then stays.
    """
    mx.eval(arrays)
    text = json.dumps(meta)
    strings = {"format": FORMAT, "meta": text, "checksum": checksum(arrays, text)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.safetensors")
    try:
        try:
            mx.save_safetensors(str(temporary), arrays, strings)
        except RuntimeError as error:
            raise OSError(f"{error}") from error
        size = sum(array.nbytes for array in arrays.values())
        if temporary.stat().st_size < size:
            raise OSError(f"wrote {temporary.stat().st_size} of {size} bytes")
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """Arrays and metadata of a checkpoint; raises CorruptCheckpoint where it is damaged, UsageError where absent."""
    arrays, strings = _opened(path, read=True)
    if checksum(arrays, strings["meta"]) != strings["checksum"]:
        raise CorruptCheckpoint(f"{path} is damaged: its contents do not match its checksum.")
    return arrays, json.loads(strings["meta"])


def metadata(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, its arrays neither read nor checked; raises what `load` does."""
    try:
        return json.loads(_opened(path, read=False)[1]["meta"])
    except ValueError as error:
        raise CorruptCheckpoint(f"{path} is damaged: its metadata are not JSON.") from error


def _opened(path: Path, read: bool) -> tuple[dict[str, mx.array], dict[str, str]]:
    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}.")
    try:
        loaded = mx.load(str(path), return_metadata=True)
        arrays, strings = cast(tuple[dict[str, mx.array], dict[str, str]], loaded)
        if read:
            mx.eval(arrays)  # loads are lazy: read now, before somebody replaces the file
    except (RuntimeError, ValueError) as error:
        raise CorruptCheckpoint(f"{path} is not a whole safetensors file: {error}") from error
    if strings.get("format") != FORMAT:
        raise CorruptCheckpoint(f"{path} has format {strings.get('format')!r}; needed: {FORMAT!r}.")
    return arrays, strings


def newest_whole(folder: Path) -> tuple[Path, dict[str, mx.array], dict[str, Any]] | None:
    """The newest checkpoint of a folder that reads back whole; prints one sentence for each damaged one."""
    for path in sorted(folder.glob("step_*.safetensors"), reverse=True):
        try:
            return path, *load(path)
        except CorruptCheckpoint as error:
            print(f"warning: {error} Falling back to the one before.")
    return None


def find(given: str | Path) -> Path:
    """The checkpoint file meant by a file, a run folder or its checkpoints folder."""
    path = Path(given)
    for folder in (path / "checkpoints", path):
        files = sorted(folder.glob("step_*.safetensors")) if folder.is_dir() else []
        if files:
            return files[-1]
    if not path.is_file():
        raise UsageError(f"no checkpoint at {given}; needed: a .safetensors file or a run folder that holds some.")
    return path


def config_of(meta: dict[str, Any], file: Path) -> dict[str, Any]:
    """The config in a checkpoint's metadata; UsageError for a file of a model alone (training/exported.py)."""
    if "config" not in meta:
        raise UsageError(f"{file} holds a model for use alone; needed: a run's checkpoint.")
    return meta["config"]


def home(file: Path) -> Path:
    """The run's folder that a checkpoint lies in; the file's own folder where that is no folder of checkpoints."""
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def checksum(arrays: dict[str, mx.array], text: str) -> str:
    """A BLAKE2 digest over names, shapes, types, contents and the metadata text."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        if array.size:
            raw = mx.contiguous(array).reshape(-1).view(mx.uint8)
            digest.update(memoryview(raw))  # pyright: ignore[reportArgumentType]  # MLX's stub lacks __buffer__
    return digest.hexdigest()


def provenance() -> dict[str, str]:
    """The git commit (with "+" where the tree is changed) and the versions that matter to a result.

    A copy without git, such as a container's, is told the commit by $MLX_LAB_GIT.
    """
    names = ("mlx", "numpy", "hydra-core", "omegaconf", "trackio")
    return {"git": os.environ.get("MLX_LAB_GIT") or _commit(), "python": platform.python_version()} | {
        n: version(n) for n in names
    }


def _commit() -> str:
    command = ["git", "-C", Path(__file__).resolve().parent, "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
    except FileNotFoundError:  # no git here
        return "unknown"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
