"""One command as several processes that train together, each on a device of its own; how they find each other.

Rank 0 prints, what the others print is shown only if one of them fails. When one ends with an error all end, and its
error and exit status are those of the whole.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx

from runtime.errors import UsageError

GRACE = 1.5  # seconds in which rank 0 may say the same error itself
TOPOLOGY, ORDER = Path("/sys/devices/system/cpu"), ("physical_package_id", "core_id")
PARENT = "MLX_LAB_PARENT"  # a started process finds the id of its parent here


def together(command: Sequence[str], count: int, backend: str = "auto", device: str = "auto") -> int:
    """Runs `command` in `count` processes on this machine; the exit status: 0, or that of the first to fail.

    SIGINT and SIGTERM are passed on to all. Raises UsageError where the backend can't be used here or GPUs are missing.
    """
    backend = chosen(backend, device)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ranks_")))
        places = environments(count, backend, folder)
        cores = shares(count) if backend == "nccl" else []
        said = [folder / f"{rank}.txt" for rank in range(count)]
        running: list[subprocess.Popen] = []
        stack.callback(_end, running)
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        stack.callback(lambda: [signal.signal(number, handler) for number, handler in before.items()])
        for number in before:
            signal.signal(number, lambda got, frame: _tell(running, got))
        for rank, place in enumerate(places):
            output: Any = None if rank == 0 else stack.enter_context(said[rank].open("w"))
            with bound(cores[rank]) if cores else nullcontext():
                running.append(
                    subprocess.Popen(
                        command,
                        env={**os.environ, **place, PARENT: str(os.getpid())},
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                    )  # fmt: skip
                )
        return _watched(running, said)


def chosen(backend: str, device: str) -> str:
    """The backend that "auto" means here; UsageError for one that needs a launcher of its own."""
    if backend == "auto":
        backend = "nccl" if device != "cpu" and mx.cuda.is_available() else "ring"
    if backend not in ("ring", "nccl"):
        raise UsageError(
            f"distributed.processes starts processes over ring or nccl on this machine, got backend {backend}; start "
            f"them with mlx.launch --backend {backend} and leave distributed.processes at 1."
        )
    return backend


def environments(count: int, backend: str, folder: Path) -> list[dict[str, str]]:
    """What each process must find in its environment; UsageError where there are fewer GPUs than processes."""
    if backend == "ring":
        hosts = [[f"127.0.0.1:{port}"] for port in free_ports(count)]
        path = folder / "hosts.json"
        path.write_text(json.dumps(hosts))
        threads = str(max(1, (os.cpu_count() or 1) // 2 // count))  # half of the cores' threads, as one process takes
        own = {"MLX_HOSTFILE": str(path), "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", threads)}
        return [{"MLX_RANK": str(rank), **own} for rank in range(count)]
    cards = gpus(os.environ)
    if len(cards) < count:
        raise UsageError(f"distributed.processes={count} needs as many GPUs, got {len(cards)}.")
    port = free_ports(1)[0]
    common = {"MLX_WORLD_SIZE": str(count), "NCCL_HOST_IP": "127.0.0.1", "NCCL_PORT": str(port)}
    return [{"MLX_RANK": str(rank), "CUDA_VISIBLE_DEVICES": cards[rank], **common} for rank in range(count)]


def shares(count: int) -> list[set[int]]:
    """CPUs for each of `count` processes, neighbours by socket and core, [] where they can't be told or are too few.

    A step is launched by one thread for each process: two that meet on a core, which a scheduler that doesn't know the
    cores under it lets happen, made steps of a UNet on two GPUs take 32 to 35 ms instead of 27.
    """
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2 * count:
        return []
    cpus = sorted(os.sched_getaffinity(0), key=lambda cpu: (*(_topology(cpu, n) for n in ORDER), cpu))
    return [{*cpus[rank * len(cpus) // count : (rank + 1) * len(cpus) // count]} for rank in range(count)]


@contextmanager
def bound(cpus: set[int]) -> Iterator[None]:
    """Processes that start meanwhile run on these CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _topology(cpu: int, name: str) -> int:
    path = TOPOLOGY / f"cpu{cpu}" / "topology" / name
    return int(path.read_text()) if path.exists() else 0


def gpus(environment: Mapping[str, str]) -> list[str]:
    """The names of the GPUs that may be used: those of CUDA_VISIBLE_DEVICES, or all that the driver lists."""
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.splitlines()
    return [str(number) for number, line in enumerate(line for line in listed if line.startswith("GPU"))]


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for own in sockets:
            own.bind(("127.0.0.1", 0))
        return [own.getsockname()[1] for own in sockets]


def follow_parent() -> None:
    """In a process that `together` started: it is asked to save and stop when its parent is killed (on Linux)."""
    parent = os.environ.get(PARENT)
    if parent is not None and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != int(parent):  # gone already
            os.kill(os.getpid(), signal.SIGTERM)


def _watched(running: list[subprocess.Popen], said: list[Path]) -> int:
    """The exit status of the first to fail, after its error was shown, or of rank 0 once all have ended."""
    stopped = {128 + signal.SIGINT, 128 + signal.SIGTERM}  # asked to stop, all save and end so
    while True:
        codes = [process.poll() for process in running]
        failed = [rank for rank, code in enumerate(codes) if code and code not in stopped]
        if failed:
            break
        if None not in codes:
            return max(code or 0 for code in codes)
        time.sleep(0.05)
    first = failed[0]
    until = time.monotonic() + GRACE
    while first and running[0].poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    code = running[first].returncode
    if first and not running[0].returncode:  # else rank 0 has said what is wrong
        print(said[first].read_text(errors="replace").strip(), file=sys.stderr)
        print(f"process {first} of {len(running)} ended with status {code}", file=sys.stderr, flush=True)
    return code if code > 0 else 128 - code


def _tell(running: list[subprocess.Popen], number: int) -> None:
    for process in running:
        if process.poll() is None:
            process.send_signal(number)


def _end(running: list[subprocess.Popen]) -> None:
    """Ends at once what still runs: after an error the others would wait for a process that is gone."""
    _tell(running, signal.SIGKILL)
    for process in running:
        process.wait()
