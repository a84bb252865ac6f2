"""The function that Modal calls: one attempt at a job, in a container that may be stopped at any time."""

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from scripts.remote import status
from scripts.remote.backend import Container
from scripts.remote.child import Child, gpu, kernel_cache
from scripts.remote.mirror import Mirror

OLDEST_DRIVER = 580  # for CUDA 13


class Crashed(RuntimeError):
    """The command ended in a way that another attempt may get past."""


def execute(job: dict[str, Any], container: Container | None = None) -> dict[str, Any]:
    """Runs a job's command and keeps what it wrote on the volume; called again after a preemption or crash, it goes on.

    job: see submit.job_of. Returns {"state": "finished" or "failed", ...}; raises Crashed where a retry may help, and
    KeyboardInterrupt (preemption) or Modal's InputCancellation as they came, after saving.
    """
    if container is None:
        from scripts.remote.modal_backend import Mounted

        container = Mounted(job["volume"])
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # both mean: save and go
    return Attempt(job, container).run()


class Attempt:
    """One attempt at a job."""

    def __init__(self, job: dict[str, Any], container: Container):
        self.job, self.container, self.mount = job, container, Path(job["mount"])
        self.place = self.mount / status.folder(job["name"])
        container.reload()
        before = status.read(self.place / "status.json")
        self.before, self.again = before, before.get("id") == job["id"]
        self.begun = self.again and before["state"] != "clearing"
        self.status = {
            "id": job["id"], "name": job["name"], "kind": job["kind"], "state": "running", "message": "",
            "attempt": before["attempt"] + 1 if self.again else 1, "call": container.call, "gpu": job["gpu"],
            "started": before["started"] if self.again else status.now(), "step": 0, "digest": job["digest"],
            "git": os.environ.get("MLX_LAB_GIT", "unknown"), "command": job["command"],
        }  # fmt: skip
        self.flags = {text.lower() for text in job["command"]}
        self.work = Path(tempfile.mkdtemp(prefix="mlx-lab-"))
        self.run_folder = self.work / "outputs" / job["name"]
        self.mirror = Mirror(self.run_folder, self.mount / "outputs" / job["name"])

    def run(self) -> dict[str, Any]:
        """Prepares, runs the command to its end, and keeps what came of it."""
        if refusal := self._refusal():  # the status stays that of the run which is there
            return self.status | {"state": "failed", "message": refusal}
        driver, arch = gpu()
        if driver is not None and driver < OLDEST_DRIVER and self.job["cuda"] == "13":
            said = f"the driver here is {driver}, CUDA 13 needs {OLDEST_DRIVER}; send it again with --cuda 12."
            return self._end("failed", said) | {"fallback": "12"}
        if complaint := self._complaint():
            return self._end("failed", complaint)
        command = self._prepare()
        kernels = self.mount / kernel_cache(self.job["cuda"], arch)
        kernels.mkdir(parents=True, exist_ok=True)
        # trackio's database dies with the container: the record that lasts is metrics.jsonl
        environment = {"MLX_PTX_CACHE_DIR": str(kernels), "TRACKIO_DIR": str(self.work / "trackio")}
        child = Child(command, self.work, environment)
        try:
            self._watch(child)
        except BaseException as stop:
            self._ignore_signals()
            child.stop(self.job.get("grace_seconds", 18.0))  # of the 30 that Modal gives
            state = "crashed" if isinstance(stop, Exception) else "cancelled"  # InputCancellation is no Exception
            self._end("preempted" if isinstance(stop, KeyboardInterrupt) else state, child.last_line())
            raise
        code = child.process.returncode
        if code == 0:
            return self._end("finished", "")
        if code == 2 or self.job["kind"] != "train":
            return self._end("failed", child.last_line())
        self._end("crashed", child.last_line())
        raise Crashed(f"{command[0]} ended with status {code}: {self.status['message']}")

    def _refusal(self) -> str:
        """Why another run of this name forbids this one, or ""."""
        if self.again or self.job["kind"] != "train":
            return ""
        if said := status.busy(self.before):
            return said
        if (self.mirror.volume / "config.yaml").exists() and not {"resume=true", "overwrite=true"} & self.flags:
            return (f"{self.job['name']} is on the volume already; go on with resume=true, replace it with "
                    "overwrite=true or choose another run_name.")  # fmt: skip
        return ""

    def _complaint(self) -> str:
        """Why this job can't run here, or ""."""
        for path in self.job["reads"]:
            there = self.mount / path
            if not there.exists():
                return f"{path} is not on the volume {self.job['volume']}; send it without --data-on-volume."
            listed = status.read(self.mount / status.manifest_of(path)).get("files", {})
            short = [name for name, size in listed.items() if not _is(there / name if name else there, size)]
            if short:
                return f"{len(short)} of {len(listed)} files of {path} are not whole on the volume; send it again."
        if self.job["kind"] == "train":
            from scripts.remote.request import digest

            if (here := digest(self.job["command"][1:])) != self.job["digest"]:
                return f"the configuration composes to {here} here, to {self.job['digest']} where it was sent."
        return ""

    def _prepare(self) -> list[str]:
        """Lays out the working directory; the command to run in it."""
        (self.work / "outputs").mkdir()
        (self.mount / "data").mkdir(exist_ok=True)
        (self.work / "data").symlink_to(self.mount / "data")
        for path in self.job["reads"]:
            link = Path(*Path(path).parts[:2])
            if link.parts[0] == "outputs" and not (self.work / link).exists():
                (self.work / link).symlink_to(self.mount / link)
        script, *given = self.job["command"]
        if self.job["kind"] != "train":
            self._note()
            return [script, *given]
        if "overwrite=true" in self.flags and not self.begun and self.mirror.volume.exists():
            self.status["state"] = "clearing"  # an attempt that finds this clears again, any later one must not
            self._note()
            shutil.rmtree(self.mirror.volume)
        self.mirror.restore()
        self.status["state"] = "running"
        self._note()
        given = [text for text in given if not text.startswith(("resume=", "overwrite="))]
        return [script, *given, *(["resume=true"] if self.begun or "resume=true" in self.flags else [])]

    def _watch(self, child: Child) -> None:
        """Waits for the command; saves when a checkpoint is new, and else each `save_seconds`."""
        saved, seen = time.monotonic(), self._checkpoints()
        while not child.ended(self.job.get("poll_seconds", 5.0)):
            late = time.monotonic() - saved > self.job.get("save_seconds", 60.0)
            if late or self._checkpoints() != seen:
                saved, seen = time.monotonic(), self._checkpoints()
                try:
                    self._save()
                except Exception as error:  # of the volume: no reason to stop the training
                    print(f"warning: not saved to the volume ({error}); the next save brings it.", flush=True)

    def _save(self) -> None:
        """The run, its output and its status to the volume, committed."""
        if self.job["kind"] == "train" and self.run_folder.exists():
            self.mirror.save()
            status.write(self.place / "files.json", self.mirror.digests)
        kept = {"output.log": f"output-{self.status['attempt']}.log", "result.json": "result.json"}
        for name, target in kept.items():
            if (self.work / name).exists():
                self.place.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.work / name, self.place / target)
        self.status["step"] = self._step()
        self._note()

    def _note(self) -> None:
        self.status["updated"] = status.now()
        status.write(self.place / "status.json", self.status)
        self.container.commit()

    def _end(self, state: str, message: str) -> dict[str, Any]:
        self.status |= {"state": state, "message": message}
        self._save()
        shutil.rmtree(self.work, ignore_errors=True)
        return self.status

    def _ignore_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # SIGUSR1: Modal's cancellation
                signal.signal(number, signal.SIG_IGN)

    def _checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.run_folder / "checkpoints").glob("[!.]*.safetensors"))

    def _step(self) -> int:
        """The last step saved or recorded."""
        steps = [int(name[5:13]) for name in self._checkpoints() if name.startswith("step_")]
        with suppress(FileNotFoundError, ValueError, KeyError):
            last = (self.run_folder / "metrics.jsonl").read_text().rstrip().rpartition("\n")[2]
            steps.append(json.loads(last)["step"])
        return max(steps, default=0)


def _is(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
