"""Several processes of one command: their places, whose output is shown, and what one that fails does to the others."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from runtime.errors import UsageError
from scripts import processes
from scripts.processes import chosen, environments, free_ports, gpus, together

RANK = "import os, sys, time; rank = int(os.environ['MLX_RANK'])\n"


def ran(code: str, count: int = 3) -> tuple[int, float]:
    """The exit status of processes that run the code on a ring's environment, and the seconds it took."""
    begin = time.monotonic()
    return together([sys.executable, "-S", "-c", RANK + code], count, "ring", "cpu"), time.monotonic() - begin


def test_only_rank_0_is_shown_where_all_end_well(capfd):
    assert ran("print('rank', rank); print('aside', rank, file=sys.stderr)")[0] == 0
    said = capfd.readouterr()
    assert said.out == "rank 0\n" and said.err == "aside 0\n"


def test_the_error_of_another_rank_is_shown_and_its_status_taken_and_all_end(capfd, tmp_path):
    code = f"open({str(tmp_path)!r} + '/' + str(rank), 'w').write(str(os.getpid()))\n"
    status, seconds = ran(code + "time.sleep(0.3 if rank == 2 else 60)\nsys.exit('planted' if rank == 2 else 0)")
    said = capfd.readouterr()
    assert status == 1 and seconds < 10
    assert said.err == "planted\nprocess 2 of 3 ended with status 1\n"
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


def test_what_rank_0_says_itself_is_not_said_twice(capfd):
    assert ran("print('error: the same', file=sys.stderr)\nsys.exit(2)")[0] == 2
    assert capfd.readouterr().err == "error: the same\n"


def test_a_killed_process_ends_the_others(capfd):
    status, seconds = ran("rank == 1 and os.kill(os.getpid(), 9)\ntime.sleep(60)", count=2)
    assert status == 128 + 9 and seconds < 10
    assert "process 1 of 2 ended with status -9" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_all_and_those_that_save_longer_are_waited_for(tmp_path, number):
    code = f"""
import signal
def stop(number, frame):
    time.sleep(0.3 * rank)
    open({str(tmp_path)!r} + f'/saved{{rank}}', 'w')
    sys.exit(128 + number)
signal.signal(signal.SIGINT, stop), signal.signal(signal.SIGTERM, stop)
open({str(tmp_path)!r} + f'/ready{{rank}}', 'w')
time.sleep(60)"""
    before = signal.getsignal(number)
    ready = [tmp_path / f"ready{rank}" for rank in range(3)]

    def ask() -> None:
        while not all(path.exists() for path in ready):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    asking = threading.Thread(target=ask)
    asking.start()
    status, seconds = ran(code)
    asking.join()
    assert status == 128 + number and seconds < 20
    assert len([*tmp_path.glob("saved*")]) == 3
    assert signal.getsignal(number) is before


def test_places_on_a_ring(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    made = environments(3, "ring", tmp_path)
    assert [own["MLX_RANK"] for own in made] == ["0", "1", "2"]
    hosts = json.loads(Path(made[1]["MLX_HOSTFILE"]).read_text())
    assert len({host for (host,) in hosts}) == 3 and all(host.startswith("127.0.0.1:") for (host,) in hosts)
    assert made[0]["OPENBLAS_NUM_THREADS"] == "2"


def test_places_on_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3,5")
    made = environments(2, "nccl", tmp_path)
    assert [own["CUDA_VISIBLE_DEVICES"] for own in made] == ["2", "3"]
    assert all(own["MLX_WORLD_SIZE"] == "2" and own["NCCL_HOST_IP"] == "127.0.0.1" for own in made)
    assert made[0]["NCCL_PORT"] == made[1]["NCCL_PORT"]
    with pytest.raises(UsageError, match="distributed.processes=4 needs as many GPUs, got 3"):
        environments(4, "nccl", tmp_path)


def test_gpus_are_those_of_the_driver_where_none_are_chosen(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: a)'\necho 'GPU 1: NVIDIA H100 (UUID: b)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus({}) == ["0", "1"] and gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    tool.unlink()
    assert gpus({}) == []


def test_the_backend_is_nccl_only_where_there_are_cuda_gpus(monkeypatch):
    assert chosen("auto", "auto") == "ring"
    monkeypatch.setattr(processes.mx.cuda, "is_available", lambda: True)
    assert (chosen("auto", "auto"), chosen("auto", "cpu"), chosen("ring", "gpu")) == ("nccl", "ring", "ring")
    with pytest.raises(UsageError, match="got backend jaccl; start them with mlx.launch --backend jaccl"):
        chosen("jaccl", "auto")


def test_ports_are_free_and_different():
    assert len(set(free_ports(5))) == 5


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to CPUs")
def test_processes_on_gpus_have_cores_of_their_own(monkeypatch, tmp_path, capfd):
    for cpu in range(8):  # two sockets, two cores each, threads i and i + 4 on one core
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{cpu % 4 // 2}\n")
        (folder / "core_id").write_text(f"{cpu % 4 % 2}\n")
    monkeypatch.setattr(processes, "TOPOLOGY", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
        assert processes.shares(2) == [{0, 4, 1, 5}, {2, 6, 3, 7}]
        assert processes.shares(4) == [{0, 4}, {1, 5}, {2, 6}, {3, 7}]
        assert sum(map(len, processes.shares(3))) == 8 and processes.shares(5) == []
    before = os.sched_getaffinity(0)
    one = {min(before)}
    monkeypatch.setattr(processes, "shares", lambda count: [one] * count)
    monkeypatch.setattr(processes, "chosen", lambda backend, device: "nccl")
    monkeypatch.setattr(processes, "environments", lambda count, *_: [{"MLX_RANK": str(i)} for i in range(count)])
    assert ran(f"sys.exit(os.sched_getaffinity(0) != {one})", count=2)[0] == 0
    assert os.sched_getaffinity(0) == before
