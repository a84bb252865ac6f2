"""A command in a process of its own, its output printed and kept, stopped by exactly one signal."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """A Python script of this repository, run in `folder`; what it prints is kept in output.log there."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]):
        self.log = folder / "output.log"
        # a session of its own: only `stop` passes signals on, since a second one would end it before it has saved
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / command[0]), *command[1:]], cwd=folder, env={**os.environ, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._tell, daemon=True)
        self._reader.start()

    def _tell(self) -> None:
        with self.log.open("a") as log:
            for line in self.process.stdout or ():
                print(line, end="", flush=True)
                log.write(line)
                log.flush()

    def ended(self, seconds: float) -> bool:
        """Waits so long at most; whether it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=seconds)
            self._reader.join(timeout=5)
            return True
        return False

    def stop(self, grace: float) -> None:
        """Asks it to save and stop; kills it after so many seconds."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            if not self.ended(grace):
                self.process.kill()
                self.process.wait()
        self._reader.join(timeout=5)

    def last_line(self) -> str:
        """The last that it printed."""
        with suppress(FileNotFoundError):
            return (self.log.read_text().strip().splitlines() or [""])[-1]
        return ""


def gpu() -> tuple[int | None, str]:
    """The NVIDIA driver's major version and the GPU's architecture, "sm90"; (None, "cpu") without one."""
    if shutil.which("nvidia-smi") is None:
        return None, "cpu"
    command = ["nvidia-smi", "--query-gpu=driver_version,compute_cap", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True)
    driver, _, arch = (said.stdout.splitlines() or [""])[0].partition(",")
    if said.returncode or not driver.split(".")[0].isdigit():
        return None, "cpu"
    return int(driver.split(".")[0]), f"sm{arch.strip().replace('.', '')}"


def kernel_cache(cuda: str, arch: str) -> str:
    """The name of the folder of compiled kernels that fit this MLX, CUDA and GPU."""
    return f"cache/ptx/mlx-{version('mlx')}-cuda{cuda}-{arch}"
