"""A provider of folders that behaves as Modal's documents say: stale mounts, preemptions, retries, lost uploads."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runtime.jit import cache_folder, compiler_found
from scripts.remote.backend import Call, Entry
from scripts.remote.spec import ROOT, UNSENT, place_of

HERE = Path(__file__).parent
# of debian_slim with the image's apt packages; there is no git
TOOLS = ("g++", "gcc", "as", "ld", "sh", "mkdir", "mv", "rm")


class FakeVolume:
    """What is committed, a folder. lose_after: uploads stop with an error after so many files, which stay."""

    def __init__(self, store: Path):
        self.store, self.lose_after = store, None
        self.uploaded: list[str] = []
        store.mkdir(parents=True, exist_ok=True)

    def entries(self, path: str) -> list[Entry]:
        start = self.store / path
        files = [start] if start.is_file() else [p for p in start.rglob("*") if p.is_file()] if start.is_dir() else []
        return [
            Entry(p.relative_to(self.store).as_posix(), p.stat().st_size, float(int(p.stat().st_mtime))) for p in files
        ]

    def read(self, path: str) -> Iterator[bytes]:
        data = (self.store / path).read_bytes()
        for start in range(0, len(data), 2**16):
            yield data[start : start + 2**16]

    def upload(self, files: dict[str, Path | bytes]) -> None:
        for path, given in files.items():
            if self.lose_after is not None and len(self.uploaded) >= self.lose_after:
                self.lose_after = None
                raise ConnectionError("the connection was lost")
            target = self.store / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(given if isinstance(given, bytes) else given.read_bytes())
            self.uploaded.append(path)

    def json(self, path: str) -> dict[str, Any]:
        """A committed JSON file; {} where it is missing or being written."""
        try:
            return json.loads((self.store / path).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}


class FakeCalls:
    """Runs calls in processes of a clean folder that holds what the image would.

    preempt: one condition for each preemption, polled with the volume; it may also return a signal. grace: seconds
    between the announcement and SIGKILL. answers: instead of running anything, the results of calls, None for a Ctrl-C.
    """

    def __init__(self, folder: Path, volume: FakeVolume, grace: float = 30.0):
        self.folder, self.volume, self.grace = folder, volume, grace
        self.preempt: list[Callable[[FakeVolume], Any]] = []
        self.specs: list[dict] = []
        self.attempts: list[int] = []
        self.changes: dict[str, Any] = {"poll_seconds": 0.05}  # of the job, for quick tests
        self.result: dict[str, Any] | None = None
        self.answers: list[dict[str, Any] | None] | None = None
        self.cancelled: list[str] = []
        self._process: subprocess.Popen | None = None
        self.thread: threading.Thread | None = None
        self.output = ""

    def spawn(self, spec: dict[str, Any], detach: bool, told: Any) -> dict[str, Any] | None:
        self.specs.append(spec)
        call = f"fc-{len(self.specs)}"
        told(Call(call, f"https://modal.com/apps/{call}"))
        if self.answers is not None:
            return None if detach else self.answers.pop(0)
        self.thread = threading.Thread(target=self._run, args=(spec, call))
        self.thread.start()
        if detach:
            return None
        self.thread.join()
        return self.result

    def cancel(self, call: str) -> None:
        self.cancelled.append(call)
        if self._process is not None:
            self._process.send_signal(signal.SIGUSR1)

    def logs(self, call: str) -> Iterator[str]:
        yield self.output

    def _run(self, spec: dict[str, Any], call: str) -> None:
        clean = lay_out(spec, self.folder / call / "image")
        failures, preempted = 0, True
        while failures <= spec["function"]["retries"]["max_retries"] and not self.cancelled:
            number = len(self.attempts)
            place = self.folder / call / f"container-{number}"
            place.mkdir(parents=True)
            job = json.loads(json.dumps(spec["arguments"]["job"])) | {"mount": str(place / "vol")} | self.changes
            given = {"job": job, "store": str(self.volume.store), "call": call, "result": str(place / "result.json")}
            (place / "job.json").write_text(json.dumps(given))
            code, preempted = self._attempt(clean, place, spec)
            self.attempts.append(code)
            if code == 0:
                self.result = json.loads((place / "result.json").read_text())
                return
            failures += not preempted
        last = self.output.strip().splitlines()[-1:]
        self.result = {"state": "cancelled" if self.cancelled else "crashed", "message": "".join(last)}

    def _attempt(self, clean: Path, place: Path, spec: dict) -> tuple[int, bool]:
        environment = {"PATH": str(tools(self.folder)), "HOME": str(Path.home()), "PYTHONPATH": str(clean)}
        environment["XDG_CACHE_HOME"] = str(cache_folder().parent)  # a container's would be empty: kernels made anew
        environment |= spec["image"]["env"] | {"TRACKIO_DIR": "/dev/null/none"}  # the job must choose a folder itself
        shutil.copy(HERE / "container.py", place / "container.py")
        command = [sys.executable, str(place / "container.py"), str(place / "job.json")]
        with (place / "output").open("w") as output:
            process = subprocess.Popen(command, cwd=place, env=environment, stdout=output, stderr=subprocess.STDOUT)
            self._process, asked = process, None
            while process.poll() is None:
                if asked is None and self.preempt and (found := self.preempt[0](self.volume)):
                    self.preempt.pop(0)
                    asked = time.monotonic()
                    process.send_signal(signal.SIGINT if found is True else found)
                if asked is not None and time.monotonic() - asked > self.grace:
                    process.kill()
                time.sleep(0.02)
        self.output += (place / "output").read_text()
        return process.returncode, asked is not None


class FakeProvider:
    """Volumes and calls below one folder."""

    def __init__(self, folder: Path):
        self.folder, self._volumes = folder, {}
        self.calls = FakeCalls(folder, self.volume("mlx-lab"))

    def volume(self, name: str) -> FakeVolume:
        if name not in self._volumes:
            self._volumes[name] = FakeVolume(self.folder / "volumes" / name)
        return self._volumes[name]


def lay_out(spec: dict[str, Any], target: Path) -> Path:
    """Copies what the image of a specification would hold of this repository, and the user's packages."""
    target.mkdir(parents=True)
    places = [ROOT / name for name in (*spec["source"]["files"], *spec["source"]["folders"])]
    for place in (*places, *map(place_of, spec["plugins"])):
        if place.is_dir():
            shutil.copytree(place, target / place.name, ignore=shutil.ignore_patterns(*UNSENT))
        else:
            shutil.copy(place, target / place.name)
    return target


def tools(folder: Path) -> Path:
    """A folder of links to the programs that the image has."""
    place = folder / "bin"
    if not place.exists():
        place.mkdir(parents=True)
        for name in TOOLS:
            if found := compiler_found(os.environ["PATH"]) if name == "g++" else shutil.which(name):
                (place / name).symlink_to(found)
    return place
