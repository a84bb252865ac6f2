"""A container of the fake provider (fake.py), run from a clean folder: `python container.py JOB.json` runs one attempt.

It needs nothing but the standard library and what the image holds. As Modal documents it: the mounted volume is a
snapshot; what others commit is seen after reload(), which fails where a file is open; what is written lasts from
commit() on, the last writer of a file wins; SIGUSR1 cancels the input, SIGINT announces a preemption.
"""

import filecmp
import json
import os
import shutil
import signal
import sys
from pathlib import Path


class InputCancellation(BaseException):
    """Modal's exception of that name."""


class Container:
    """The volume as one container sees it: `mount` over the committed files in `store`."""

    def __init__(self, store: Path, mount: Path, call: str):
        self.store, self.mount, self.call = store, mount, call
        shutil.copytree(store, mount, dirs_exist_ok=True)
        self._base = self._files(mount)

    @staticmethod
    def _files(folder: Path) -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    def reload(self) -> None:
        """Takes what was committed elsewhere; RuntimeError with open files, as Modal's."""
        for handle in Path("/proc/self/fd").iterdir():
            if handle.exists() and handle.resolve().is_relative_to(self.mount):
                raise RuntimeError(f"there are open files preventing the operation: {handle.resolve()}")
        shutil.copytree(self.store, self.mount, dirs_exist_ok=True)
        self._base = self._files(self.mount)

    def commit(self) -> None:
        """Writes what is new or changed to the store, removes what was removed here."""
        here = self._files(self.mount)
        for name in here:
            target = self.store / name
            if not target.exists() or not filecmp.cmp(self.mount / name, target, shallow=False):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.mount / name, target)
        for name in self._base - here:
            (self.store / name).unlink(missing_ok=True)
        self._base = here


def main(given: dict) -> None:
    """One attempt; its result to the file `result`."""
    from scripts.remote.job import execute

    def cancel(number, frame):
        raise InputCancellation("Input was cancelled by user")

    signal.signal(signal.SIGUSR1, cancel)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    container = Container(Path(given["store"]), Path(given["job"]["mount"]), given["call"])
    result = execute(given["job"], container)
    Path(given["result"]).write_text(json.dumps(result))


if __name__ == "__main__":
    assert not {"modal", "tests"} & {*sys.modules} and "/work" not in os.environ.get("PYTHONPATH", "")
    main(json.loads(Path(sys.argv[1]).read_text()))
