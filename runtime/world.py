"""The processes of a run, each on a device of its own: who they are, and what they tell each other.

Every function here that communicates must be called by all processes, in the same order. Inside a compiled step the
calls of `mean` are chained, so that the order is that of the program and not one that a graph's outputs suggest.
"""

import json
import os
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError
from runtime.op import Batch
from runtime.schema import CHOICES

# how each backend's launcher tells a process its place; the first that is set names the backend of "auto"
TOLD = {"ring": "MLX_HOSTFILE", "nccl": "NCCL_HOST_IP", "jaccl": "MLX_JACCL_COORDINATOR", "mpi": "OMPI_COMM_WORLD_RANK"}
STRATEGIES = CHOICES["distributed.strategy"]
SMALL = 1 << 18  # arrays of fewer numbers travel joined


@dataclass(frozen=True)
class World:
    """This process among `size`; `rank` 0 is the one that writes, prints and evaluates."""

    rank: int = 0
    size: int = 1
    backend: str = ""
    group: Any = None

    @property
    def many(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def mean(self, arrays: Batch) -> Batch:
        """The mean of floating arrays over all processes, each in its own type, where float16 travels as float32.

        A value that is not finite in one process is not finite in all.
        """
        if not self.many:
            return arrays
        found: Batch = {}
        before: mx.array | None = None
        for names in _loads(arrays):
            types = [arrays[name].dtype for name in names]
            wide = mx.float32 if types[0] == mx.float16 else types[0]
            load = arrays[names[0]].astype(wide)
            if len(names) > 1:
                load = mx.concatenate([arrays[name].astype(wide).reshape(-1) for name in names])
            load = load if before is None else _after(load, before)
            before = total = mx.distributed.all_sum(load, group=self.group)
            start = 0
            for name, kind in zip(names, types, strict=True):
                size, shape = arrays[name].size, arrays[name].shape
                part = total if len(names) == 1 else total[start : start + size].reshape(shape)
                found[name], start = (part / self.size).astype(kind), start + size
        return {name: found[name] for name in arrays}

    def sent(self, arrays: Batch) -> Batch:
        """Rank 0's arrays, in every process; all must have arrays of those names, shapes and types."""
        found: Batch = {}
        for name, array in arrays.items() if self.many else ():
            own = array if self.rank == 0 else mx.zeros_like(array)
            kind = mx.int32 if array.dtype == mx.bool_ else array.dtype  # NCCL has no bool
            found[name] = mx.distributed.all_sum(own.astype(kind), group=self.group).astype(array.dtype)
            mx.eval(found[name])
        return found if self.many else arrays

    def gathered(self, array: mx.array) -> mx.array:
        """The arrays (B, ...) of all processes end to end, by rank, (size * B, ...)."""
        if not self.many:
            return array
        found = mx.distributed.all_gather(mx.contiguous(array if array.ndim else array[None]), group=self.group)
        mx.eval(found)
        return found

    def told(self, value: Any) -> Any:
        """Rank 0's value, which JSON must be able to say, in every process."""
        if not self.many:
            return value
        text = json.dumps(value).encode() if self.rank == 0 else b""
        size = np.asarray(self.sent({"": mx.array(len(text))})[""]).item()
        said = self.sent({"": mx.array([*text] or [0] * size, mx.uint32)})[""]
        return json.loads(np.asarray(said).astype(np.uint8).tobytes())

    def wait(self) -> None:
        """Returns when all processes have come here."""
        self.gathered(mx.array([self.rank]))

    def check_equal(self, arrays: Batch, what: str) -> None:
        """Raises UsageError in every process where the arrays differ in one bit (by sums over their words)."""
        if not self.many:
            return
        sums = mx.stack([_checksum(array) for array in arrays.values()])[None]
        rows = np.asarray(self.gathered(sums))
        for rank, row in enumerate(rows):
            differ = [name for name, other in zip(arrays, row != rows[0], strict=True) if other]
            if differ:
                raise UsageError(
                    f"process {rank} starts with other {what} than process 0 ({len(differ)} of {len(row)} arrays, the "
                    f"first is {differ[0]}); needed: the same seed, code, configuration and checkpoint for all."
                )


ALONE = World()


def placed() -> bool:
    """Whether a launcher has given this process a place among others."""
    return "MLX_RANK" in os.environ or TOLD["mpi"] in os.environ


def joined(processes: int = 1, backend: str = "auto") -> World:
    """Meets the other processes, if a launcher started some; UsageError where that fails or they are not `processes`.

    processes: how many were asked for; 1 takes as many as were launched. backend: ring, nccl, jaccl, mpi, or auto: the
    one that the launcher prepared.
    """
    if not placed():
        if processes > 1:
            raise UsageError(
                f"distributed.processes={processes} is started by `python launcher.py run_name=...` alone; here, as in "
                "a sweep, a run is one process: use distributed.processes=1."
            )
        return ALONE
    prepared = [name for name, variable in TOLD.items() if variable in os.environ]
    if backend == "auto":
        if not prepared:
            raise UsageError(f"MLX_RANK is set, but none of {', '.join(TOLD.values())}: start with mlx.launch.")
        backend = prepared[0]
    if backend == "nccl" and mx.default_device() == mx.Device(mx.cpu):
        raise UsageError("backend nccl needs GPUs, got device cpu; use device=auto, or distributed.backend=ring.")
    try:
        group = mx.distributed.init(strict=True, backend=backend)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"the processes can't meet over {backend}: {error}") from error
    if processes not in (1, group.size()):
        raise UsageError(
            f"distributed.processes is {processes}, but {group.size()} processes were launched; make them equal."
        )
    return World(group.rank(), group.size(), backend, group)


def lost(error: Exception) -> bool:
    """Whether an error says that another process of a ring has gone."""
    return placed() and "connection to a peer was lost" in str(error)


def _loads(arrays: Batch) -> list[list[str]]:
    """Names by what travels together: large arrays alone, small ones joined by type."""
    large = [[name] for name, array in arrays.items() if array.size >= SMALL]
    small: dict[str, list[str]] = {}
    for name, array in arrays.items():
        if array.size < SMALL:
            small.setdefault(str(array.dtype), []).append(name)
    return [*large, *small.values()]


def _after(array: mx.array, before: mx.array) -> mx.array:
    later: Any = mx.depends(array, before)
    return later[0] if isinstance(later, list | tuple) else later


def _checksum(array: mx.array) -> mx.array:
    words = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint32}[array.dtype.size]
    bits = array.astype(mx.uint8) if array.dtype == mx.bool_ else mx.contiguous(array).reshape(-1).view(words)
    bits = bits.astype(mx.uint32)
    return (bits * (mx.arange(bits.size, dtype=mx.uint32) * 2 + 1)).sum()
