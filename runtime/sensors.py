"""What the machine does while it computes: utilisation, memory, temperature and power of processors.

A source has read(), the values by name (percent, mb = 2^20 bytes, watts, celsius), and close(). What a machine doesn't
tell is absent. read() is called by one thread.
"""

import json
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.errors import UsageError
from runtime.memory import rss

MB = 2**20
EVERY_MS, MEAN_OF = 500, 10  # macmon's interval, and how many of its lines (5 s) a value is the mean of


class Process:
    """This process: its processor time, 100 percent a core, and resident memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, busy: Callable[[], float] = time.process_time):
        self.clock, self.busy = clock, busy
        self.before = clock(), busy()

    def read(self) -> dict[str, float]:
        """The mean since the last call, and the memory now."""
        (then, used), self.before = self.before, (self.clock(), self.busy())
        percent = 100 * (self.before[1] - used) / max(self.before[0] - then, 1e-9)
        return {"process_cpu_percent": percent, "process_mb": rss() / MB}

    def close(self) -> None:
        """Nothing to do."""


class Linux:
    """The whole machine by /proc, and its processor packages' power by RAPL, where that may be read (mostly by root).

    root: the folder that holds proc and sys.
    """

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic):
        self.root, self.clock = root, clock
        zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))  # AMD's too
        self.packages = [zone for zone in zones if _text(zone / "name").startswith("package")]
        self.ticks, self.energies, self.at = self._ticks(), self._energies(), clock()

    def read(self) -> dict[str, float]:
        """Means since the last call, and the memory now."""
        values = {}
        before, self.ticks = self.ticks, self._ticks()
        if before and self.ticks and (total := self.ticks[0] - before[0]):
            values["cpu_percent"] = 100 * (self.ticks[1] - before[1]) / total
        memory = {line.split(":")[0]: line.split()[1] for line in _text(self.root / "proc/meminfo").splitlines()}
        if {"MemTotal", "MemAvailable"} <= memory.keys():
            values["memory_mb"] = (int(memory["MemTotal"]) - int(memory["MemAvailable"])) / 1024
        energies, now = self._energies(), self.clock()
        used = [self._since(zone, self.energies[zone], energies[zone]) for zone in energies if zone in self.energies]
        if used and now > self.at:
            values["cpu_watts"] = sum(used) / 1e6 / (now - self.at)
        self.energies, self.at = energies, now
        return values

    def _ticks(self) -> tuple[int, int] | None:
        """All processors' ticks since the start: total, busy."""
        words = _text(self.root / "proc/stat").split("\n", 1)[0].split()[1:9]  # guests' are in the first already
        ticks = [int(word) for word in words]
        return (sum(ticks), sum(ticks) - ticks[3] - ticks[4]) if len(ticks) > 4 else None  # idle, waiting for disks

    def _energies(self) -> dict[Path, int]:
        """Microjoules by package, since some time."""
        told = {zone: _text(zone / "energy_uj") for zone in self.packages}
        return {zone: int(text) for zone, text in told.items() if text}

    def _since(self, zone: Path, before: int, now: int) -> int:
        """Microjoules between two values of a counter that starts anew when it is full."""
        return now - before if now >= before else now - before + int(_text(zone / "max_energy_range_uj") or 0)

    def close(self) -> None:
        """Nothing to do."""


class Nvidia:
    """The GPUs that CUDA may use, by NVML; UsageError where that can't be asked."""

    def __init__(self):
        try:
            import pynvml
        except ImportError as error:
            raise UsageError("GPU metrics need NVML's bindings: pip install nvidia-ml-py.") from error
        self.nvml: Any = pynvml
        try:
            self.nvml.nvmlInit()
            self.devices = self._visible(os.environ.get("CUDA_VISIBLE_DEVICES"))
        except self.nvml.NVMLError as error:
            raise UsageError(f"NVML tells nothing of the GPU: {error}.") from error

    def _visible(self, chosen: str | None) -> list[Any]:
        """Handles in CUDA's order, which is NVML's where all GPUs are of one kind. chosen: numbers or UUIDs."""
        if chosen is None:
            return [self.nvml.nvmlDeviceGetHandleByIndex(index) for index in range(self.nvml.nvmlDeviceGetCount())]
        names = [name.strip() for name in chosen.split(",") if name.strip()]
        by_number, by_name = self.nvml.nvmlDeviceGetHandleByIndex, self.nvml.nvmlDeviceGetHandleByUUID
        return [by_number(int(name)) if name.isdigit() else by_name(name) for name in names]

    def read(self) -> dict[str, float]:
        """The values now, "gpu0_percent" and so on."""
        nvml, values = self.nvml, {}
        sensors: dict[str, Callable[[Any], float]] = {
            "percent": lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
            "mb": lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used / MB,
            "watts": lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
            "celsius": lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        }
        for index, gpu in enumerate(self.devices):
            for name, sensor in sensors.items():
                try:
                    values[f"gpu{index}_{name}"] = float(sensor(gpu))
                except nvml.NVMLError:  # a sensor that this GPU, or a slice of one, does not have
                    continue
        return values

    def close(self) -> None:
        """Lets go of the library."""
        self.nvml.nvmlShutdown()


class Macmon:
    """Apple's processors by macmon's stream of JSON lines, which needs no root; UsageError where it is not installed.

    Values are means of its last 5 s; they are absent once it has ended.
    """

    def __init__(self):
        command = ["macmon", "pipe", "-i", str(EVERY_MS)]
        try:
            self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError as error:
            raise UsageError("GPU and power metrics need macmon: brew install macmon.") from error
        self.lines: deque[dict[str, float]] = deque(maxlen=MEAN_OF)
        threading.Thread(target=self._follow, name="macmon", daemon=True).start()

    def _follow(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            try:
                self.lines.append(apple(json.loads(line)))
            except ValueError:  # cut short, or a message
                continue
        self.lines.clear()

    def read(self) -> dict[str, float]:
        """The mean of each value over the lines that hold it."""
        lines = list(self.lines)
        found = {name: [line[name] for line in lines if name in line] for name in {n for line in lines for n in line}}
        return {name: sum(values) / len(values) for name, values in sorted(found.items())}

    def close(self) -> None:
        """Ends macmon."""
        self.child.terminate()
        self.child.wait()


def apple(line: dict[str, Any]) -> dict[str, float]:
    """The values of one of macmon's lines, of version 0.8 or before (with pairs: frequency, scaled ratio)."""
    pair = line.get("gpu_usage")
    told = {
        "gpu_percent": (line.get("gpu_active_ratio", pair[1] if isinstance(pair, list) else None), 100),
        "cpu_percent": (line.get("cpu_active_ratio"), 100),
        "gpu_watts": (line.get("gpu_power"), 1),
        "cpu_watts": (line.get("cpu_power"), 1),
        "system_watts": (line.get("sys_power"), 1),
        "memory_mb": (line.get("memory", {}).get("ram_usage"), 1 / MB),
        "gpu_celsius": (line.get("temp", {}).get("gpu_temp_avg"), 1),
        "cpu_celsius": (line.get("temp", {}).get("cpu_temp_avg"), 1),
    }
    return {name: value * factor for name, (value, factor) in told.items() if isinstance(value, int | float)}


def _text(path: Path) -> str:
    """A small file's text; "" where it can't be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
