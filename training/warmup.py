"""Before the first step: every graph that a run will need is built from one batch, and nothing is computed or changed.

MLX knows shapes without computing, so building a step's graph finds missing keys and wrong shapes. The graphs are those
that the run uses afterwards: a compiled step is traced here instead of in its first call.
"""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from runtime.errors import UsageError
from runtime.op import NumpyBatch, ObjectiveOp, active
from runtime.scheduler import ScheduledOp
from runtime.seed import global_key_kept, step_key
from runtime.slots import snapshot, write
from runtime.upload import to_device
from runtime.watch import Watch, place
from training.evaluate import means_of
from training.forward import judged_arrays
from training.update import UpdateOp

OWN = {"mask"}  # what the pipeline adds by itself


def warm_up(estimator: Any, modes: Sequence[str]) -> None:
    """Builds the graphs of every mode, data set and set of scheduled ops; checks what ops, traces and monitors need.

    Raises UsageError for a missing key and for what an op can't compute. Before a training, monitored keys must be
    somewhere, and keys that nobody reads are named in a warning. Weights, optimizers, statistics, random states, places
    in the data and in schedules stay as they are.
    """
    notes: dict[str, list[Watch]] = {}
    with _unchanged(estimator):
        for mode in modes:
            sets = estimator.pipeline.get_ds_ids(mode)
            batches = {ds_id: estimator.pipeline.first(mode, ds_id) for ds_id in sets}
            for epoch in changes(estimator):
                built = {ds_id: _build(estimator, mode, ds_id, epoch, batch) for ds_id, batch in batches.items()}
                for ds_id in built:
                    _check_traces(estimator, mode, ds_id, built)
                notes.setdefault(mode, []).extend(built.values())
    if "train" in modes:
        _check_monitors(estimator, notes)
        told = ", ".join(f"{key} ({', '.join(own)})" for key, own in _unused(estimator, notes).items())
        if told:
            print(f"warning: no op, update or trace reads these keys: {told}.")
        estimator.on_ready()


def changes(estimator: Any) -> list[int]:
    """The epochs to come (from 1) that are the first with their set of scheduled ops and optimizers."""
    network, length, total = estimator.network, estimator.steps_per_epoch, estimator.total_steps
    schedulers = [op.scheduler for op in network.ops if isinstance(op, ScheduledOp)]
    schedulers += [update.scheduler for update in network.updates if update.scheduler is not None]
    first = max(estimator.step - (estimator.step == total), 0) // length + 1
    last = max([first, *(s.settled for s in schedulers)]) + math.lcm(*(s.period for s in schedulers)) - 1
    last = last if total is None else min(last, -(-total // length))
    found: dict[tuple, int] = {}
    for epoch in range(first, max(first, last) + 1):
        network.phases((epoch - 1) * length)
        found.setdefault((network.scheduled(), *(update.place for update in network.updates)), epoch)
    return list(found.values())


def _build(estimator: Any, mode: str, ds_id: str, epoch: int, batch: NumpyBatch) -> Watch:
    """The graphs of one mode, data set and epoch; what its forward pass reads and makes."""
    network, step = estimator.network, estimator.train_step
    network.watch = watch = Watch(epoch)
    phases, wanted = network.phases((epoch - 1) * estimator.steps_per_epoch), estimator.wanted(mode, ds_id)
    arrays, key, held = to_device(batch), step_key(0, 0, 0), snapshot(step.state)
    try:
        if mode == "train":
            for last in (True,) if step.accumulate == 1 else (False, True):
                watch.given |= set(step(arrays, key, wanted, last, phases, ds_id))
                write(step.state, held)
        else:
            watch.given |= {*batch, *estimator.forward[mode](judged_arrays(network), arrays, key, wanted, ds_id)}
    finally:
        network.watch = None
        write(step.state, held)
    watch.keys |= {*batch, *watch.given}
    return watch


def _check_traces(estimator: Any, mode: str, ds_id: str, built: dict[str, Watch]) -> None:
    """Every key that a trace declares must be given to it, or written by one that stands before it."""
    watch, written = built[ds_id], set()
    told = estimator.told(mode, ds_id)
    means = {name for name in means_of(estimator) if any(name in other.given for other in built.values())}
    for trace in told:
        for key in trace.inputs:
            base, _, owner = key.partition("|")
            there = watch.given | written | (means if mode != "train" else set())
            if key in there or (base in there and owner in built):
                continue
            later = [type(other).__name__ for other in told if base in other.outputs]
            why = (
                f"{later[0]} writes it, but stands behind it in the list of traces"
                if later
                else (f"no earlier trace writes it, and the keys there are {', '.join(sorted(watch.keys))}")
            )
            raise UsageError(f"{type(trace).__name__} misses {key!r} {place(mode, ds_id, watch)}; {why}.")
        written |= set(trace.outputs)


def _check_monitors(estimator: Any, notes: dict[str, list[Watch]]) -> None:
    """Every monitored key must be there in some mode."""
    given = {mode: set().union(*(watch.given for watch in watches)) for mode, watches in notes.items()}
    absent = [name for name in estimator.monitor_names if not any(name in keys for keys in given.values())]
    if absent:
        keys = {mode: set().union(*(watch.keys for watch in watches)) for mode, watches in notes.items()}
        have = "; ".join(f"{mode}: {', '.join(sorted(own))}" for mode, own in keys.items())
        raise UsageError(f"no op computes {', '.join(absent)} of monitor_names; the keys there are in {have}.")


def _unused(estimator: Any, notes: dict[str, list[Watch]]) -> dict[str, list[str]]:
    """The keys that nobody reads, each with its modes; none where a graph was there already, as in a second fit."""
    unused: dict[str, list[str]] = {}
    for mode, watches in notes.items():
        if not all(watch.traced for watch in watches):
            continue
        read = set(means_of(estimator)) | OWN | set(estimator.network.carry)
        read |= {key for op in estimator.network.updates for key in op.inputs}
        read |= {op.identifier for op in estimator.network.ops}  # a table's step reads it
        read |= {key for op in estimator.network.ops if isinstance(op, ObjectiveOp) for key in op.objective.extras}
        read |= {key for trace in estimator.traces if active(trace.mode, mode) for key in trace.inputs}
        for key in sorted(set().union(*(watch.made - watch.read for watch in watches)) - read):
            unused.setdefault(key, []).append(mode)
    return unused


@contextmanager
def _unchanged(estimator: Any) -> Iterator[None]:
    """Puts back random states, places in schedules and the models' modes; `_build` puts back the train step's state."""
    network = estimator.network
    scheduled = [(op, op.place) for op in network.ops if isinstance(op, ScheduledOp | UpdateOp)]
    training = [(model, model.training) for model in network.models.values()]
    states = random.getstate(), np.random.get_state()
    try:
        with global_key_kept():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for op, at in scheduled:
            op.place = at
        for model, mode in training:
            model.train(mode)
