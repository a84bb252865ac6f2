"""Ops of which a draw decides whether they count: Sometimes and OneOf, and Repeat, where data decide.

A compiled step is one static graph, so every op inside is computed in every step and the draw selects among the
results. So the draw comes from the op's own key, like all others, and holds in evaluation too, at no second
compilation; where computing all of them costs too much (whole models), a RepeatScheduler has one in each epoch.
An op that isn't selected changes no layer statistics and no state. Its derivatives count as 0, but must be finite.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx

from ops.meta.fuse import named
from runtime.errors import UsageError
from runtime.nested import Nested, changes, passed
from runtime.op import Batch, Context, Op
from runtime.slots import snapshot, write


class Choice(Nested):
    """What the ops of this file share."""

    def tried(self, i: int, data: Batch, ctx: Context, key: mx.array, now: mx.array | None = None) -> Batch:
        """The data after op i; what it changes in models and states stays only where `now` (0-d, bool) is true."""
        op, phases = self.ops[i], self.phases(ctx)
        assert op is not None  # Nested allows for None, these ops don't
        kept = {"models": self.models, "state": self.state}
        held = snapshot(kept)
        after = passed([op], data, replace(ctx, key=key), phases and phases[i : i + 1])
        if gone := [name for name in data if name not in after]:
            raise UsageError(f"{type(self).__name__} can't take out {', '.join(gone)}: a graph's keys don't vary.")
        if now is not None:
            moved = {path: new for path, new in snapshot(kept).items() if new is not held[path]}
            write(kept, {path: mx.where(now, new, held[path]) for path, new in moved.items()})
        return after

    def selected(self, now: mx.array, new: Batch, old: Batch) -> Batch:
        """The data `new` where `now` is true, else `old`; UsageError where their keys or shapes differ."""
        both = dict(old)
        for name in dict.fromkeys([*new, *old]):
            if (value := new.get(name)) is not (other := old.get(name)):
                if value is None or other is None or value.shape != other.shape:
                    has = " and ".join("none" if v is None else str(v.shape) for v in (value, other))
                    raise UsageError(f"{type(self).__name__} needs {name!r} of one shape in every case, got {has}.")
                both[name] = mx.where(now, value, other)
        return both


class Sometimes(Choice):
    """Applies an op with probability `prob`, one draw a batch; otherwise its outputs keep what the data hold.

    So the outputs must exist in the data already, in the same shape.
    """

    def __init__(self, tensor_op: Op, prob: float = 0.5):
        if not 0 <= prob <= 1:
            raise UsageError(f"Sometimes: prob must lie in 0..1, got {prob}.")
        super().__init__([tensor_op])
        self.inputs = tuple(dict.fromkeys([*tensor_op.inputs, *tensor_op.outputs]))
        self.outputs, self.mode, self.ds_id, self.prob = tensor_op.outputs, tensor_op.mode, tensor_op.ds_id, prob

    def forward(self, data: Batch, ctx: Context) -> Batch:
        """The op's outputs, or what was there."""
        chance, key = mx.random.split(ctx.key)
        now = mx.random.uniform(key=chance) < self.prob
        after = self.tried(0, data, ctx, key, now)
        return changes(data, self.selected(now, after, data))


class OneOf(Choice):
    """Applies one of several ops, one draw a batch by `probs` (None: equal ones).

    They must share inputs, outputs, mode and ds_id, and give outputs of the same shapes.
    """

    def __init__(self, *tensor_ops: Op, probs: Sequence[float] | None = None):
        super().__init__(tensor_ops)
        kinds = {(op.inputs, op.outputs, named(op.mode), named(op.ds_id)) for op in tensor_ops}
        if len(kinds) != 1:
            raise UsageError(f"OneOf needs ops with the same inputs, outputs and modes, got {len(kinds)} kinds.")
        probs = [1 / len(tensor_ops)] * len(tensor_ops) if probs is None else list(probs)
        if len(probs) != len(tensor_ops) or abs(sum(probs) - 1) > 1e-8 or min(probs) < 0:
            raise UsageError(f"OneOf needs {len(tensor_ops)} probabilities with sum 1, got {probs}.")
        first = tensor_ops[0]
        self.inputs, self.outputs, self.mode, self.ds_id = first.inputs, first.outputs, first.mode, first.ds_id
        self.probs = probs

    def forward(self, data: Batch, ctx: Context) -> Batch:
        """The chosen op's outputs."""
        draw, key = mx.random.split(ctx.key)
        drawn, chosen = mx.random.categorical(mx.log(mx.array(self.probs)), key=draw), data
        for i, own in enumerate(mx.random.split(key, len(self.ops))):
            now = drawn == i
            after = self.tried(i, data, ctx, own, now)
            chosen = self.selected(now, after, chosen) if i and not ctx.halted else after
            if ctx.halted:
                break
        return changes(data, chosen)


class Repeat(Choice):
    """Applies an op `repeat` times in a row, each time to what the last one left.

    repeat may be a function of data keys, named as its parameters, that gives one truth value: the op is applied once
    and then again as long as the function is true, at most `max_iter` times in all. All `max_iter` passes are computed
    in every step, so max_iter is needed there; it is refused beside a number.
    """

    def __init__(self, op: Op, repeat: int | Callable[..., mx.array] = 1, max_iter: int | None = None):
        super().__init__([op])
        count, self.condition = (repeat, None) if isinstance(repeat, int) else (max_iter, repeat)
        if count is None or count < 1 or (self.condition is None and max_iter is not None):
            raise UsageError(
                "Repeat needs a number from 1 on, or a function and max_iter from 1 on, as a graph has a fixed length; "
                f"got repeat={repeat!r} and max_iter={max_iter}."
            )
        self.names = [] if self.condition is None else list(inspect.signature(self.condition).parameters)
        self.inputs = tuple(dict.fromkeys([*op.inputs, *(name for name in self.names if name not in op.outputs)]))
        self.outputs, self.mode, self.ds_id, self.count = op.outputs, op.mode, op.ds_id, count

    def forward(self, data: Batch, ctx: Context) -> Batch:
        """What the last pass left."""
        now = data
        for i, key in enumerate(mx.random.split(ctx.key, self.count)):
            if i == 0 or self.condition is None:
                now = self.tried(0, now, ctx, key)
            else:  # once false it stays false, since the data stay as they are
                going = truth(self.condition(*(now[name] for name in self.names)))
                after = self.tried(0, now, ctx, key, going)
                now = self.selected(going, after, now)
            if ctx.halted:
                break
        return changes(data, now)


def truth(value: Any) -> mx.array:
    """One truth value, 0-d; UsageError for several."""
    found = mx.array(value)
    if found.size != 1:
        raise UsageError(f"Repeat's function must give one truth value, got shape {found.shape}.")
    return found.reshape(()).astype(mx.bool_)
