"""Where in a training step numbers first stop being finite: the step is run again, uncompiled, every call watched.

Forward: the first call of an op or module that returns such a number for finite inputs, tangents of a jvp included.
Backward: the last call whose output has a finite gradient and whose input or weights have not; gradients inside are
taken by adding zeros to inputs and outputs of every module (`training/probes.py`).
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from runtime.calls import modules_in
from runtime.inspection import check_nan_inf, gradient_norms
from runtime.nested import Nested, described
from runtime.op import Batch, Context, Op
from runtime.scheduler import ScheduledOp
from runtime.slots import snapshot, write
from training.finite_calls import Call, FiniteCalls
from training.probes import Probes
from training.rows import ROWS
from training.step import TrainStep
from training.update import UpdateOp, as_number, global_norm


@dataclass
class Origin:
    """What was found. part: data, weights, state, forward, backward, norm or nothing; place: the key, leaf or call."""

    part: str
    place: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def origins(
    step: TrainStep, batch: Batch, key: mx.array, at: int, phases: tuple[Hashable, ...] | None = None, ds_id: str = ""
) -> list[Origin]:
    """The places, the first of which began it, in the training step `at` (from 0) with this batch and its key (2,).

    The step's state must be that before the step, as the guard leaves it; it stays so, uncompiled code runs.
    """
    held = snapshot(step.state)
    mx.disable_compile()
    try:
        return [*_given(step, batch), *_run(step, batch, key, at, phases, ds_id)] or [
            Origin("nothing", "", "Run again uncompiled, the step is finite: look at kernels, or try compile=false.")
        ]
    finally:
        mx.enable_compile()
        write(step.state, held)


def _given(step: TrainStep, batch: Batch) -> Iterator[Origin]:
    """What wasn't finite before anything was computed."""
    found = check_nan_inf(batch)
    if found:
        yield Origin("data", found.path, f"The batch came with it: {found}.")
    found = check_nan_inf(step.state["models"])
    if found:
        yield Origin("weights", found.path, f"The weights had it before this step: {found}.")
    rest = {name: part for name, part in step.state.items() if name not in ("models", "sums")}
    found = check_nan_inf(rest)
    if found:
        yield Origin("state", found.path, f"The state had it before this step: {found}.")


def _run(step: TrainStep, batch: Batch, key: mx.array, at: int, phases: Any, ds_id: str) -> Iterator[Origin]:
    network, place = step.network, mx.array(at, mx.int32)
    read = {name: rows for name, rows in step.lookup.read(batch, step.state["carry"]).items() if name == ROWS}
    data = {**batch, **step.state["carry"], **read}
    epoch = mx.array(at // step.steps_per_epoch, mx.int32)
    context = Context("train", key, place, epoch, wrap=step._wrap, phases=phases, ds_id=ds_id)
    held = snapshot(step.state)

    def forward(weights: Batch) -> Batch:
        write(step.state["models"], step._cast({name: leaf for name, leaf in weights.items() if name != ROWS}))
        out = network.forward(data | {name: leaf for name, leaf in weights.items() if name == ROWS}, context)
        write(step.state, held)
        return out

    weights = {path: held[f"models.{path}"] for paths in step.leaves.values() for path in paths} | read
    calls = FiniteCalls(_things(step))
    with calls.noted():
        out = forward(weights)
    if (begun := calls.first()) is not None:
        yield _told(begun)
        return
    for loss in (name for name in step.losses if name in out):
        yield from _backward(step, loss, forward, weights)
    given = {update.gradients: out[update.gradients] for update in step.given if update.gradients in out}
    if bad := check_nan_inf(given):
        yield Origin("forward", bad.path, f"A gradient that an op computes has it: {bad}.")


def _backward(step: TrainStep, loss: str, forward: Any, weights: Batch) -> Iterator[Origin]:
    """Where the gradient of a loss stops being finite on its way back."""
    scale = step.state["scaler"]["scale"] if "scaler" in step.state else mx.array(1.0)
    probes = Probes({name: thing for name, thing in _things(step).items() if not isinstance(thing, Op)})
    own = {path: leaf for path, leaf in weights.items() if path in step.leaves[loss] or path == ROWS}
    with probes.noted():
        forward(weights)

    def scaled(given: Batch, added: Batch) -> mx.array:
        with probes.added(added):
            return as_number(loss, forward(weights | given)) * scale

    gradients, inside = mx.grad(scaled, argnums=(0, 1))(own, probes.zeros)
    bad = {path for path, leaf in gradients.items() if check_nan_inf(leaf)}
    found, top = check_nan_inf(gradients), max(gradient_norms(gradients), key=lambda one: one.norm)
    if place := probes.origin(inside, bad):
        text = f"The gradient of {loss} stops being finite inside of {place}, on its way back"
        yield Origin("backward", place, f"{text}; the first leaf without a finite one: {found}.")
    elif found:
        text = f"The gradient of {loss} isn't finite where it reaches the modules: it begins in the ops after them"
        yield Origin("backward", loss, f"{text}; the first leaf without a finite one: {found}.")
    elif not mx.isfinite(global_norm(gradients)).item():
        text = f"Every gradient of {loss} is finite, but the sum of their squares isn't"
        yield Origin("norm", top.path, f"{text}: the largest norm, {top.norm:.4g}, is that of {top.path}.")


def _things(step: TrainStep) -> dict[str, Any]:
    """Ops and modules by the names that messages use; those of an op inside of another too."""
    found: dict[str, Any] = {}
    for i, op in enumerate(step.network.ops):
        inner = [own for own in op.scheduler.values if own is not None] if isinstance(op, ScheduledOp) else [op]
        for own in inner:
            every = [own, *own.every()] if isinstance(own, Nested) else [own]
            found |= {f"op {i} ({described(part)})": part for part in every if not isinstance(part, UpdateOp)}
    return found | dict(modules_in(step.network.models))


def _told(begun: tuple[Call, bool, list[str], str]) -> Origin:
    call, clean, wrong, earliest = begun
    text = f"It begins in {call.name}" + ("" if call.name.startswith("op ") else f" ({call.kind})")
    text += f", which returns numbers that aren't finite{' for finite inputs' if clean else ''}"
    text += f", under {', '.join(wrong)}" if any(wrong) else ""
    later = f"; inside of it {earliest} is the first call with such a result" if earliest != call.name else ""
    return Origin("forward", call.name, f"{text}{later}.")
