"""The folder of a sweep: whose it is, and the configurations as they were when it began."""

import json
import shutil
from pathlib import Path
from typing import Any, TextIO

from runtime.errors import UsageError
from scripts.compose import CONFIGS
from training.workspace import locked


def enter(folder: Path, described: dict[str, Any], overwrite: bool) -> TextIO:
    """Makes the folder of a sweep, or makes sure that it holds this one; the lock, to be closed at the end.

    `<folder>/configs` is a copy of configs/ from when the sweep began: trials that wait in line, and those of a
    continued sweep, don't see later edits. UsageError where the folder holds something else or is in use.
    """
    lock = locked(folder)
    try:
        if overwrite:
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != ".lock":
                    path.unlink()
        _check(folder, described)
    except BaseException:
        lock.close()
        raise
    if not configs_of(folder).exists():
        partial = folder / ".configs.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(CONFIGS, partial)
        partial.rename(configs_of(folder))
    (folder / "sweep_settings.json").write_text(json.dumps(described, indent=2) + "\n")
    return lock


def configs_of(folder: Path) -> Path:
    """Where a sweep's copy of the configurations is."""
    return folder / "configs"


def begun(folder: Path) -> bool:
    """Whether a folder holds a sweep."""
    return (folder / "sweep_settings.json").exists()


def settings_of(folder: Path) -> dict[str, Any]:
    """What `enter` was told of a sweep."""
    return json.loads((folder / "sweep_settings.json").read_text())


def _check(folder: Path, described: dict[str, Any]) -> None:
    if (folder / "config.yaml").exists():
        raise UsageError(f"{folder} is a run, no sweep; choose another run_name or replace it with overwrite=true.")
    if not begun(folder):
        return
    stored = settings_of(folder)
    if stored != described:
        key = next(k for k in {**described, **stored} if stored.get(k) != described.get(k))
        raise UsageError(
            f"{folder} holds another sweep: its {key} was {stored.get(key)}, now {described.get(key)}; choose another "
            "run_name or replace it with overwrite=true."
        )
