"""A step's state as one checkpoint holds it, whatever the number of processes, and each process's part of it."""

from collections.abc import Iterable
from itertools import chain, count
from typing import Any

from runtime.op import Batch
from runtime.slots import snapshot
from training.step import TrainStep

CARRY = "carry."


def named(traces: Iterable[Any]) -> dict[str, Any]:
    """Traces by the names under which a checkpoint keeps their state: of several called A the second is A-2."""
    found: dict[str, Any] = {}
    for trace in traces:
        numbers = (f"{trace.name}-{i}" for i in count(2))
        found[next(name for name in chain([trace.name], numbers) if name not in found)] = trace
    return found


def gathered(step: TrainStep) -> Batch:
    """All arrays by path: shards joined, and of a carry the rows (size * B, ...) of all processes, by rank."""
    arrays = step.shards.whole(snapshot(step.state))
    return {path: step.world.gathered(a) if path.startswith(CARRY) else a for path, a in arrays.items()}


def own_of(step: TrainStep, arrays: Batch, processes: int) -> Batch:
    """This process's part of the arrays (any shapes) that `processes` gathered; its own carry if they were others."""
    like, rank = snapshot(step.state), step.world.rank
    found = step.shards.own(arrays, like)
    for path, array in like.items():
        if not path.startswith(CARRY) or path not in arrays:
            continue
        if processes != step.world.size:
            found[path] = array
        elif step.world.many:
            rows = arrays[path].shape[0] // processes
            part = arrays[path][rank * rows : (rank + 1) * rows]
            found[path] = part if array.ndim else part[0]
    return found


def carry_note(meta: dict[str, Any], size: int) -> str | None:
    """What to say of a checkpoint's carry that this number of processes can't use, if so."""
    before = meta.get("processes", 1)
    return None if before == size else f"the carry of {before} processes does not fit {size}: it begins anew"


def check_start(step: TrainStep) -> None:
    """Raises UsageError in every process where they do not start from the same state, carries and shards aside."""
    own = (*step.shards.prefixes, CARRY)
    state = snapshot(step.state)
    step.world.check_equal({path: a for path, a in state.items() if not any(n in path for n in own)}, "weights")
