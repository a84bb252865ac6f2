"""A network's ops on slices of the batch."""

from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx

from runtime.errors import UsageError
from runtime.nested import Nested, passed
from runtime.op import Batch, Context, Op, active
from runtime.slicers import Slicer


class Sliced(Nested):
    """Runs ops on one slice of a batch (B, ...) after another and puts what they write together again.

    slicers: together they cut the keys of their `slice` into equally many slices; every other key is the same in all.
    Of what the ops write, the keys of `unslice` come out as wholes, losses and metrics as means over the slices, and
    nothing else: traces and later ops see the batch as it was. An UpdateOp behind it moves the weights once for all
    slices, by the gradient of that mean. In modes in which no slicer takes part the ops see the whole batch. Outside
    training a slice's intermediate arrays are gone before the next one begins; in training its gradient needs them all.
    """

    def __init__(self, ops: Op | Sequence[Op], slicers: Slicer | Sequence[Slicer]):
        super().__init__([ops] if isinstance(ops, Op) else list(ops))
        self.slicers = [slicers] if isinstance(slicers, Slicer) else list(slicers)
        cut, joined = ([key for s in self.slicers for key in keys(s)] for keys in (_cut_keys, _joined_keys))
        for what, names in (("slice", cut), ("unslice", joined)):
            if len(set(names)) != len(names):
                raise UsageError(f"several slicers {what} one key of {', '.join(names)}; needed: one slicer a key.")
        if not cut:
            raise UsageError("Sliced needs a slicer that slices a key, got slicers that only put together.")
        if self.carry:
            raise UsageError(f"an op inside of Sliced can't carry {', '.join(self.carry)} to the next step.")
        written: dict[str, None] = {}
        needed = dict.fromkeys(cut)
        for op in self.ops:
            assert op is not None
            needed |= {name: None for name in op.inputs if name not in written}
            written |= dict.fromkeys(op.outputs)
        self.means = tuple(name for name in written if name in (*self.losses, *self.metrics) and name not in joined)
        self.inputs = tuple(needed)
        self.outputs = (*(name for name in joined if name in written), *self.means)

    def forward(self, data: Batch, ctx: Context) -> Batch:
        """The wholes and the means; without a slicer in this mode all that the ops write."""
        ops, phases = [op for op in self.ops if op is not None], self.phases(ctx)
        slicers = [s for s in self.slicers if active(s.mode, ctx.mode) and active(s.ds_id, ctx.ds_id)]
        cut = {key: slicer.cut(data[key]) for slicer in slicers for key in slicer.slice}
        if not cut:
            after = passed(ops, data, ctx, phases)
            return {name: after[name] for name in self.outputs if name in after}
        counts = {key: len(parts) for key, parts in cut.items()}
        if len(set(counts.values())) != 1:
            raise UsageError(f"the slicers of Sliced must give equally many slices, got {counts}.")
        count = next(iter(counts.values()))
        found: list[Batch] = []
        for i, key in enumerate(mx.random.split(ctx.key, count)):
            parts = [parts[i] for parts in cut.values()]
            if found and ctx.mode != "train":  # one after another, else most slices are in memory at the same time
                parts = mx.depends(parts, list(found[-1].values()))
            given = {**data, **dict(zip(cut, parts, strict=True))}
            after = passed(ops, given, replace(ctx, key=key, run=None), phases)
            found.append({name: after[name] for name in self.outputs if name in after})
        whole = {name: sum((own[name] for own in found[1:]), found[0][name]) / count
                 for name in self.means if name in found[0]}  # fmt: skip
        for slicer in slicers:
            shape = data[slicer.slice[0]].shape if slicer.slice else None
            for name in slicer.unslice:
                if name in found[0]:
                    whole[name] = slicer.join([own[name] for own in found], shape)
        return whole


def _cut_keys(slicer: Slicer) -> tuple[str, ...]:
    return slicer.slice


def _joined_keys(slicer: Slicer) -> tuple[str, ...]:
    return slicer.unslice
