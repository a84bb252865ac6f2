"""Features of data sets and their floors, kept on disk between runs: a network over 10,000 images takes minutes."""

import json
import os
import sys
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

VERSION = 1  # of the files; raise it when the same key comes to mean other numbers

Statistics = tuple[np.ndarray, dict[str, float]]  # features of the data (n, d), and the floor of every metric


def folder() -> Path:
    """Where they are kept for this user: $XDG_CACHE_HOME or ~/.cache, then mlx-lab/statistics."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx-lab" / "statistics"


def kept(key: dict[str, Any], make: Callable[[], Statistics]) -> Statistics:
    """What `make` gives, from disk where this key was made before.

    key: everything the numbers depend on. A file that can't be read or belongs to another key is made anew, and one
    that can't be written is left out; both are said on stderr.
    """
    text = json.dumps({"version": VERSION, **key}, sort_keys=True)
    path = folder() / f"{sha256(text.encode()).hexdigest()[:16]}.npz"
    if path.is_file():
        try:
            return _read(path, text)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            print(f"note: the statistics in {path} can't be used ({error}); they are made anew.", file=sys.stderr)
    made = make()
    try:
        _write(path, text, made)
    except OSError as error:
        print(f"note: the data's statistics are not kept in {path} ({error}).", file=sys.stderr)
    return made


def _read(path: Path, text: str) -> Statistics:
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["key"]) != text:
            raise ValueError("they belong to other data or another method")
        return stored["features"], json.loads(str(stored["floor"]))


def _write(path: Path, text: str, made: Statistics) -> None:
    features, floor = made
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")  # two runs may write the same statistics at once
    try:
        np.savez(temporary, features=features, floor=np.array(json.dumps(floor)), key=np.array(text))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
