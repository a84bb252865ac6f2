"""Chooses and describes the device that MLX computes on."""

import os
from importlib.metadata import version
from typing import Any

import runtime.blas  # must come before mlx.core

# isort: split
import mlx.core as mx

from runtime.errors import UsageError
from runtime.trees import leaves

GIB = 2**30


def select(device: str = "auto", memory_gib: float | None = None, cache_gib: float | None = None) -> mx.Device:
    """Makes `device` the default one; "auto" takes a GPU where there is one. Limits of None stay as MLX sets them.

    device: "auto", "gpu" or "cpu". memory_gib: what MLX may allocate. cache_gib: freed memory that it may keep.
    Raises UsageError for an unknown device, a GPU that is not there, or a limit that is not positive.
    """
    if device not in ("auto", "gpu", "cpu"):
        raise UsageError(f"device must be auto, gpu or cpu, got {device!r}.")
    found = mx.is_available(mx.gpu)
    if device == "gpu" and not found:
        raise UsageError(
            "device=gpu, but MLX finds no GPU here: use device=auto or device=cpu, or install the extra [cuda] "
            "on a Linux machine with an NVIDIA driver."
        )
    if memory_gib is not None and memory_gib <= 0:
        raise UsageError(f"the memory limit must be above 0 (GiB) or null, got {memory_gib}.")
    if cache_gib is not None and cache_gib < 0:
        raise UsageError(f"cache_gib must be at least 0 (GiB) or null, got {cache_gib}.")
    chosen = mx.Device(mx.cpu if device == "cpu" or not found else mx.gpu)
    mx.set_default_device(chosen)
    if memory_gib is not None:
        mx.set_memory_limit(int(memory_gib * GIB))
    if cache_gib is not None:
        mx.set_cache_limit(int(cache_gib * GIB))
    return chosen


def describe() -> dict[str, str | float]:
    """The default device in words and numbers: kind, name, memory in GiB, MLX version, BLAS (CPU only)."""
    device = mx.default_device()
    info = mx.device_info(device)
    kind = "gpu" if device == mx.Device(mx.gpu) else "cpu"
    words: dict[str, str | float] = {
        "device": kind,
        "name": str(info.get("device_name", "unknown")),
        "mlx": version("mlx"),
    }
    size = info.get("memory_size", info.get("total_memory"))
    if size is not None:
        words["memory_gib"] = round(float(size) / GIB, 1)
    if kind == "cpu":
        words["blas"] = runtime.blas.status.detail
    return words


def get_device_info() -> dict[str, str | float]:
    """`describe`, and what MLX tells of the default device beside it (names and units are MLX's) and of this machine.

    gpus, cores: how many there are.
    """
    own = {str(key): value for key, value in mx.device_info(mx.default_device()).items()}
    return describe() | own | {"gpus": mx.device_count(mx.gpu), "cores": os.cpu_count() or 0}


def synchronize(*outputs: Any) -> None:
    """Computes what `outputs` (nests, modules, dataclasses) hold, then waits for this thread's streams of all devices.

    mx.synchronize alone waits for one stream, and only for what was sent to it: an array that nobody has evaluated
    is not. Raises ValueError inside of mx.compile and mx.vmap.
    """
    mx.eval([leaf for _, leaf in leaves(outputs, private=True)])
    for device in (mx.cpu, mx.gpu):
        if mx.is_available(device):
            mx.synchronize(mx.default_stream(device))
