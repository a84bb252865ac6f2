"""Several ops as one."""

from collections.abc import Sequence
from typing import Any

from ops.tensor.shapes import Delete
from runtime.errors import UsageError
from runtime.nested import Nested, changes, passed
from runtime.op import Batch, Context, Op, as_tuple


class Fuse(Nested):
    """Runs ops in order as one op, for instance inside of Sometimes or Repeat.

    They must share mode and ds_id, which become its own. inputs: what no earlier op of it writes. outputs: all that
    they write and leave.
    """

    def __init__(self, ops: Op | Sequence[Op]):
        ops = [ops] if isinstance(ops, Op) else list(ops)
        super().__init__(ops)
        kinds = dict.fromkeys((named(op.mode), named(op.ds_id)) for op in ops)
        if len(kinds) != 1:
            raise UsageError(f"Fuse needs ops of one mode and ds_id, got {' and '.join(map(str, kinds)) or 'no ops'}.")
        self.mode, self.ds_id = ops[0].mode, ops[0].ds_id
        needed, written = {}, {}
        for op in ops:
            needed |= {name: None for name in op.inputs if name not in written}
            written |= dict.fromkeys(op.outputs)
            for name in op.inputs if isinstance(op, Delete) else ():
                written.pop(name, None)
        self.inputs, self.outputs = tuple(needed), tuple(written)

    def forward(self, data: Batch, ctx: Context) -> Any:
        """What the ops write; None for a key that one of them takes out."""
        ops = [op for op in self.ops if op is not None]
        return changes(data, passed(ops, data, ctx, self.phases(ctx)))


def named(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Modes or data sets, comparable."""
    return None if names is None else as_tuple(names)
