"""Ops in order, and ops made of others."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx

from runtime.errors import UsageError
from runtime.op import Batch, Context, Op, active
from runtime.watch import place


def passed(ops: Sequence[Op], data: Batch, ctx: Context, phases: Sequence[Hashable] | None) -> Batch:
    """The data after the ops that are active in `ctx.mode`, each with a key of its own; a second run ends at its op.

    phases: the ops' own, None outside training. Raises UsageError for a missing key and for shapes that don't fit.
    """
    keys = mx.random.split(ctx.key, max(len(ops), 1))
    for i, own in enumerate(ops):
        op, phase = own.resolved(None if phases is None else phases[i])
        if op is None or not (active(op.mode, ctx.mode) and active(op.ds_id, ctx.ds_id)):
            continue
        if ctx.halt is not None and op is ctx.halt.op:
            ctx.halt.reached = True
            return data
        if missing := [name for name in op.inputs if name not in data]:
            lacks, has = ", ".join(missing), ", ".join(sorted(data))
            where = place(ctx.mode, ctx.ds_id, ctx.watch)
            raise UsageError(f"{described(op)} misses {lacks} {where}; the data has {has}.")
        seen = data if ctx.watch is None or isinstance(op, Nested) else ctx.watch.over(data)
        try:
            added = op(seen, replace(ctx, key=keys[i], phase=phase))
        except (NotImplementedError, RecursionError):  # mistakes of an op's code, though RuntimeErrors
            raise
        except (ValueError, IndexError, RuntimeError) as error:  # what MLX raises for shapes that don't fit
            shapes = ", ".join(f"{name} {data[name].shape}" for name in op.inputs or sorted(data))
            where = place(ctx.mode, ctx.ds_id, ctx.watch)
            raise UsageError(f"{described(op)} can't compute {shapes} {where}: {error}") from error
        data = {name: value for name, value in {**data, **added}.items() if value is not None}
        if ctx.halted:
            return data
    return data


def described(op: Op) -> str:
    """An op for messages, with the model it calls: "LeNet's ModelOp"."""
    kinds = [type(model).__name__ for model in op.models.values()]
    return f"{kinds[0]}'s {type(op).__name__}" if len(kinds) == 1 else type(op).__name__


def changes(before: Batch, after: Batch) -> dict[str, Any]:
    """What must be added to `before` to make it `after`; None for keys that are gone."""
    gone = dict.fromkeys(name for name in before if name not in after)
    return {**gone, **{name: value for name, value in after.items() if before.get(name) is not value}}


class Nested(Op):
    """An op made of others: their models, state, losses, metrics, carry and phases are its own.

    ops: None stands for none. UsageError for anything that is no op. A subclass sets inputs, outputs, mode and ds_id.
    """

    def __init__(self, ops: Sequence[Op | None]):
        super().__init__()
        self.ops = tuple(ops)
        for i, op in enumerate(self.ops):
            if op is None:
                continue
            if not isinstance(op, Op):
                raise UsageError(f"{type(self).__name__} needs ops, got {type(op).__name__}.")
            self.state[str(i)] = op.state
            self.models |= {name if self.models.get(name, m) is m else f"{name}{i}": m for name, m in op.models.items()}
            for name in ("metrics", "losses", "carry"):
                setattr(self, name, tuple(dict.fromkeys([*getattr(self, name), *getattr(op, name)])))

    def every(self) -> Iterator[Op]:
        """The ops inside, those inside of them included."""
        for op in self.ops:
            if op is not None:
                yield op
            if isinstance(op, Nested):
                yield from op.every()

    def phase(self, step: int) -> Hashable:
        """Those of its ops."""
        return tuple(None if op is None else op.phase(step) for op in self.ops)

    def phases(self, ctx: Context) -> tuple[Hashable, ...] | None:
        """The phases of its ops where `ctx` is its own context; None outside training."""
        return ctx.phase if isinstance(ctx.phase, tuple) else None

    def initial_carry(self, batch: Batch) -> Batch:
        """The carry of every op before the first step."""
        carry: Batch = {}
        for op in self.ops:
            carry |= {} if op is None else op.initial_carry(batch)
        return carry
