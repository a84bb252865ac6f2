"""Sensors against made-up machines: a /proc and /sys of known counters, a fake NVML, a fake macmon."""

import json
import sys
import time
from types import SimpleNamespace

import pytest

from runtime.errors import UsageError
from runtime.sensors import Linux, Macmon, Nvidia, Process, apple


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_rapl", "-rapl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def package(root, zone, name, energy):
    folder = root / "sys/class/powercap" / zone
    folder.mkdir(parents=True, exist_ok=True)
    for file, value in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", 1_000_000)):
        (folder / file).write_text(f"{value}\n")


def test_linux_reads_ticks_memory_and_energy_counters(tmp_path):
    clock = Clock()
    write(tmp_path, proc__stat="cpu  100 0 50 800 50 0 0 0 40 0\ncpu0 1 2 3 4\n",
          proc__meminfo="MemTotal:       4096 kB\nMemFree:        100 kB\nMemAvailable:    1024 kB\n")  # fmt: skip
    package(tmp_path, "intel-rapl:0", "package-0", 500_000)
    package(tmp_path, "intel-rapl:0:0", "core", 100)  # within the package
    package(tmp_path, "intel-rapl:1", "package-1", 900_000)
    package(tmp_path, "intel-rapl:2", "psys", 100)  # the packages and more
    source = Linux(tmp_path, clock)
    clock.now = 2.0
    write(tmp_path, proc__stat="cpu  130 10 60 840 60 0 0 0 70 0\n")
    package(tmp_path, "intel-rapl:0", "package-0", 900_000)  # .4 J
    package(tmp_path, "intel-rapl:1", "package-1", 100_000)  # .2 J, past its end
    package(tmp_path, "intel-rapl:2", "psys", 999_999)
    got = source.read()
    assert got == pytest.approx({"cpu_percent": 50.0, "memory_mb": 3.0, "cpu_watts": 0.3})  # 50 of 100 ticks busy
    clock.now = 4.0
    assert source.read() == pytest.approx({"memory_mb": 3.0, "cpu_watts": 0.0})  # no tick has passed


def test_linux_leaves_out_what_it_may_not_read(tmp_path):
    write(tmp_path, proc__stat="cpu  1 0 0 9 0 0 0 0\n")
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "energy_uj").mkdir()  # reading it fails, even for root
    source = Linux(tmp_path)
    write(tmp_path, proc__stat="cpu  2 0 0 11 0 0 0 0\n")
    assert source.read() == {"cpu_percent": pytest.approx(100 / 3)}
    assert Linux(tmp_path / "nowhere").read() == {}


def test_a_process_is_as_busy_as_its_processor_time():
    clock, used = Clock(), Clock()
    source = Process(clock, used)
    clock.now, used.now = 2.0, 3.0
    got = source.read()
    assert got["process_cpu_percent"] == 150.0 and 10 < got["process_mb"] < 1e5
    clock.now = 4.0
    assert source.read()["process_cpu_percent"] == 0.0


class NVMLError(Exception):
    pass


class NotSupported(NVMLError):
    pass


def fake_nvml(monkeypatch, broken=()):
    """Two GPUs, handles 0 and 1, after the documented units: bytes, milliwatts; broken: what raises."""
    open_now = []

    def give(name, value):
        def call(handle, *rest):
            assert open_now, "used before nvmlInit or after nvmlShutdown"
            if (name, handle) in broken:
                raise NotSupported("Not Supported")
            return value(handle, *rest)

        return call

    def start():
        if "init" in broken:
            raise NVMLError("Driver Not Loaded")
        open_now.append(True)

    nvml = SimpleNamespace(
        NVMLError=NVMLError, NVML_TEMPERATURE_GPU=0, nvmlInit=start, nvmlShutdown=open_now.clear,
        nvmlDeviceGetCount=lambda: 2, nvmlDeviceGetHandleByIndex=int,
        nvmlDeviceGetHandleByUUID={"GPU-b": 1}.__getitem__,
        nvmlDeviceGetUtilizationRates=give("use", lambda gpu: SimpleNamespace(gpu=90 + gpu, memory=5)),
        nvmlDeviceGetMemoryInfo=give("memory", lambda gpu: SimpleNamespace(used=(3 + gpu) * 2**20, total=2**40)),
        nvmlDeviceGetPowerUsage=give("power", lambda gpu: 350_500),
        nvmlDeviceGetTemperature=give("heat", lambda gpu, sensor: 60 + sensor),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return open_now


@pytest.mark.parametrize("visible, gpus", [(None, [0, 1]), ("1", [1]), ("GPU-b, 0", [1, 0]), ("", [])], ids=str)
def test_nvml_gives_the_gpus_that_cuda_sees(monkeypatch, visible, gpus):
    open_now = fake_nvml(monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    source = Nvidia()
    want = {}
    for place, gpu in enumerate(gpus):
        want |= {f"gpu{place}_percent": 90.0 + gpu, f"gpu{place}_mb": 3.0 + gpu, f"gpu{place}_watts": 350.5,
                 f"gpu{place}_celsius": 60.0}  # fmt: skip
    assert source.read() == want
    source.close()
    assert not open_now


def test_a_sensor_that_a_gpu_does_not_have_is_absent(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake_nvml(monkeypatch, broken=[("power", 0), ("use", 1)])
    assert Nvidia().read() == {"gpu0_percent": 90.0, "gpu0_mb": 3.0, "gpu0_celsius": 60.0, "gpu1_mb": 4.0,
                               "gpu1_watts": 350.5, "gpu1_celsius": 60.0}  # fmt: skip


def test_a_machine_without_nvml_is_told_what_is_missing(monkeypatch):
    fake_nvml(monkeypatch, broken=["init"])
    with pytest.raises(UsageError, match="NVML tells nothing of the GPU: Driver Not Loaded"):
        Nvidia()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(UsageError, match="pip install nvidia-ml-py"):
        Nvidia()


LINE = {  # its readme's example, of version 0.8
    "timestamp": "2025-02-24T20:38:15.427569+00:00", "temp": {"cpu_temp_avg": 43.5, "gpu_temp_avg": 37.0},
    "memory": {"ram_total": 25769803776, "ram_usage": 20971520, "swap_total": 0, "swap_usage": 0}, "fans": [],
    "cpu_scaled_ratio": 0.04, "cpu_active_ratio": 0.09, "ecpu_freq_mhz": 1100, "gpu_freq_mhz": 461,
    "gpu_scaled_ratio": 0.02, "gpu_active_ratio": 0.5, "cpu_power": 0.25, "gpu_power": 8.0, "ane_power": 0.0,
    "all_power": 8.25, "sys_power": 15.5,
}  # fmt: skip
WANT = {"cpu_celsius": 43.5, "gpu_celsius": 37.0, "memory_mb": 20.0, "cpu_percent": 9.0, "gpu_percent": 50.0,
        "cpu_watts": 0.25, "gpu_watts": 8.0, "system_watts": 15.5}  # fmt: skip


def test_macmons_lines_of_both_formats():
    assert apple(LINE) == pytest.approx(WANT)
    old = {"gpu_usage": [461, 0.25], "ecpu_usage": [1181, 0.08], "gpu_power": 2.0, "memory": {}, "temp": {}}
    assert apple(old) == {"gpu_percent": 25.0, "gpu_watts": 2.0}
    assert apple({}) == {}


def install_macmon(folder, monkeypatch, body):
    program = folder / "macmon"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/arguments\n{body}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def wait_for(condition):
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


def test_macmon_gives_the_mean_of_its_last_ten_lines_and_is_ended(tmp_path, monkeypatch):
    lines = [json.dumps(LINE | {"gpu_power": float(watts)}) for watts in range(15)]
    echo = "\n".join(f"echo '{line}'" for line in [*lines[:3], "not JSON", *lines[3:]])
    install_macmon(tmp_path, monkeypatch, f"{echo}\nexec sleep 60")
    source = Macmon()
    wait_for(lambda: source.read().get("gpu_watts") == pytest.approx(9.5))  # 5 to 14
    assert source.read() == pytest.approx(WANT | {"gpu_watts": 9.5})
    assert (tmp_path / "arguments").read_text().split() == ["pipe", "-i", "500"]
    source.close()
    assert source.child.returncode == -15


def test_values_of_a_macmon_that_ended_are_absent(tmp_path, monkeypatch):
    end = tmp_path / "end"
    install_macmon(tmp_path, monkeypatch, f"echo '{json.dumps(LINE)}'\nuntil [ -e {end} ]; do sleep 0.01; done")
    source = Macmon()
    wait_for(lambda: source.read() == pytest.approx(WANT))
    end.touch()
    wait_for(lambda: source.read() == {})
    source.close()


def test_without_macmon_its_name_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="brew install macmon"):
        Macmon()
