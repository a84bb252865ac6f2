"""The folder of a run: made once, locked while a process works in it, and everything that is written there."""

import fcntl
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from omegaconf import DictConfig, OmegaConf

from runtime.errors import UsageError
from training import checkpoint
from training.tracking import Tracker


class Guest:
    """A run's folder for the processes beside rank 0: they read its checkpoints, write nothing and say nothing."""

    def __init__(self, folder: Path):
        self.folder, self.checkpoints = folder, folder / "checkpoints"

    def newest(self) -> tuple[Path, dict, dict] | None:
        """The newest whole checkpoint of this run."""
        return checkpoint.newest_whole(self.checkpoints)

    def unsaved_tracker_state(self) -> dict[str, Any] | None:
        """The tracker's state of a run that was killed before its first checkpoint: its rows are to be dropped."""
        path = self.folder / "trackio_run.json"
        return {"run_id": json.loads(path.read_text()), "step": -1, "values": {}} if path.exists() else None

    def say(self, text: str) -> None:
        """Nothing: rank 0 says it."""

    def settle(self) -> None:
        """Nothing: rank 0 replaces."""

    def withdraw(self) -> None:
        """Nothing: rank 0 wrote it."""

    def close(self) -> None:
        """Lets go of the folder."""


class Workspace(Guest):
    """`<root>/<run_name>/`: config.yaml, checkpoints/, metrics.jsonl, summary.json, samples/, log.txt.

    An existing folder is refused unless `resume` or `overwrite`; one in which another process lives, always.
    """

    def __init__(self, config: DictConfig, folder: Path, overrides: Sequence[str] = ()):
        super().__init__(folder)
        self.config = config
        self._lock: TextIO | None = None
        self._replaced = folder / ".replaced"  # where a run stands aside until what overwrites it is ready to train
        self._open_folder(config.resume, config.overwrite)
        plain: Any = OmegaConf.to_container(config, resolve=True)
        self.meta = {"run_name": config.run_name, "config": plain, "provenance": checkpoint.provenance()}
        told = folder / "overrides.json"
        self._before = told.read_text() if told.exists() else None
        self._config = self._write_config()
        self._write_overrides(json.dumps([o for o in overrides if not o.startswith(("resume=", "overwrite="))]))
        track = config.trackio
        self.tracker = Tracker(folder, track.project, config.run_name, plain, track.enabled)

    def _open_folder(self, resume: bool, overwrite: bool) -> None:
        existed = (self.folder / "config.yaml").exists()
        if existed and not (resume or overwrite):
            raise UsageError(
                f"{self.folder} exists already; continue it with resume=true, replace it with overwrite=true or choose "
                "another run_name."
            )
        self._lock = locked(self.folder)
        if existed and overwrite and not resume:
            if self._replaced.is_dir():  # of a sitting that was killed before its first step: what it wrote is nothing
                self._clear()
            else:
                self._replaced.mkdir()
                for path in self._contents():
                    path.rename(self._replaced / path.name)

    def _contents(self) -> list[Path]:
        """What is the run's, without what it replaces."""
        return [path for path in self.folder.iterdir() if path.name not in (".lock", self._replaced.name)]

    def _clear(self) -> None:
        for path in self._contents():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def settle(self) -> None:
        """Removes the run that this one replaces, now that this one can be trained."""
        shutil.rmtree(self._replaced, ignore_errors=True)

    def withdraw(self) -> None:
        """Takes back what a sitting that ended before its first step said of itself: the next is not held to it.

        The folder of a new run is then as good as none, or again that of the run it was to replace.
        """
        if self._replaced.is_dir():
            self._clear()
            for path in self._replaced.iterdir():
                path.rename(self.folder / path.name)
            self._replaced.rmdir()
            return
        if self._config.name == "config.yaml":
            for name in ("overrides.json", "trackio_run.json", "log.txt"):
                (self.folder / name).unlink(missing_ok=True)
        elif self._before is not None:
            self._write_overrides(self._before)
        self._config.unlink()

    def _write_config(self) -> Path:
        """The resolved config, written once; later sittings leave theirs as resume-<n>.yaml."""
        path = self.folder / "config.yaml"
        if path.exists():
            taken = [
                int(m[1]) for p in self.folder.glob("resume-*.yaml") if (m := re.fullmatch(r"resume-(\d+)", p.stem))
            ]
            path = self.folder / f"resume-{max(taken, default=0) + 1}.yaml"
        path.write_text(OmegaConf.to_yaml(self.config, resolve=True))
        return path

    def _write_overrides(self, text: str) -> None:
        """Whole or not at all: the next sitting reads them before anything else."""
        temporary = self.folder / "overrides.json.tmp"
        temporary.write_text(text)
        temporary.replace(self.folder / "overrides.json")

    def say(self, text: str) -> None:
        """Prints, and keeps in log.txt."""
        print(text)
        with (self.folder / "log.txt").open("a") as log:
            log.write(text + "\n")

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes summary.json, whole or not at all."""
        temporary = self.folder / "summary.json.tmp"
        temporary.write_text(json.dumps(summary, indent=2) + "\n")
        temporary.replace(self.folder / "summary.json")

    def close(self) -> None:
        """Lets go of the folder."""
        self.settle()
        if self._lock is not None:
            self._lock.close()


def locked(folder: Path) -> TextIO:
    """Makes a folder and locks it until the returned file is closed; UsageError where another process works in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UsageError(f"can't write to {folder}: {error.strerror}; choose another output_dir.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system drops it when the process dies
    except BlockingIOError as error:
        lock.close()
        raise UsageError(f"another process is running in {folder}; wait for it or choose another run_name.") from error
    return lock
