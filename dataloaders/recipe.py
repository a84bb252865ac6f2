"""How the batches of one mode and one data set are made; picklable, so that worker processes make them too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dataloaders.ops.numpy_op import Batch, NumpyOp
from dataloaders.samples import applied, finished, order_of, read, stacked
from dataloaders.source import Source
from runtime.errors import UsageError
from runtime.op import NumpyBatch, active

BatchOp = Callable[[NumpyBatch, np.random.Generator], NumpyBatch]
Numbered = Callable[[int], NumpyBatch]  # batch number -> batch

# First number after the seed in every generator's key, so that no two uses share random numbers.
SHUFFLE, OPS = 0, 1
TAKE = {"train": 2, "eval": 3, "test": 4, "infer": 5}
SAMPLES, LATER_OPS, DATA = 6, 7, 8  # per-sample ops; batch ops outside training; data sets after the first


@dataclass
class Recipe:
    """Batches of `data` by number: rows read, sample ops, stacking, batch ops, each with generators of its own.

    index: place of the data set among those of its mode. sample_ops: NumpyOps before `Batch`. batch_ops: (number, op)
    after it, NumpyOps or plain `op(batch, rng)`. others: plain ops not active here, whose `defaults` are taken.
    """

    data: Any
    mode: str
    ds_id: str
    index: int
    size: int
    seed: int
    rank: int = 0
    world: int = 1
    sample_ops: Sequence[NumpyOp] = ()
    batch_ops: Sequence[tuple[int, Any]] = ()
    others: Sequence[BatchOp] = ()
    batch: Batch = field(default_factory=Batch)

    @property
    def steps(self) -> int:
        """Batches of one pass: whole ones of this rank in training, else all rows' and the short last one too."""
        if self.mode == "train":
            return len(self.data) // self.world // self.size
        rows = len(self.data)
        return rows // self.size if self.batch.drop_last else -(-rows // self.size)

    @property
    def span(self) -> int:
        """How many consecutive batches are made together."""
        return int(np.lcm.reduce([span(op) for _, op in self.batch_ops])) if self.batch_ops else 1

    @property
    def block(self) -> int:
        """Rows that belong together in one batch, whatever the number of ranks: a BatchDataset's batch, else 1."""
        return getattr(self.data, "whole_batch", None) or 1

    def generator(self, *key: int) -> np.random.Generator:
        """The generator of one use, of this rank."""
        return self.on_all_ranks(*key, *([self.rank] if self.rank else []))

    def on_all_ranks(self, *key: int) -> np.random.Generator:
        """The generator of one use, equal on all ranks."""
        return np.random.default_rng([self.seed, *([DATA, self.index] if self.index else []), *key])

    def state(self, rng: np.random.Generator, epoch: int) -> dict[str, Any]:
        """What a NumpyOp gets beside its data; epochs count from 0, outside training they stay 0."""
        return {"mode": self.mode, "epoch": epoch, "ds_id": self.ds_id, "rng": rng}

    def chain(self) -> Numbered:
        """Batch number -> finished batch; keeps the permutation and the group of batches of the last call."""
        batch_of = self._trained() if self.mode == "train" else self._evaluated()
        for number, op in self.batch_ops:
            batch_of = self._transformed(batch_of, number, op)
        return batch_of

    def finish(self, samples: list[dict[str, Any]], state: dict[str, Any]) -> NumpyBatch:
        """Samples through their ops into one batch; "mask" outside training and where an op may leave rows out."""
        samples, mask = finished(self.data, samples, self.sample_ops, state)
        batch = stacked(samples, self.batch.pad_value)
        if self.mode == "train" and not any(getattr(op, "masks", False) for op in self.sample_ops):
            if not mask.all():
                raise UsageError("an op returned FilteredData(replacement=False); set its attribute masks = True.")
            return batch
        return {**batch, "mask": mask}

    def _made(self, rows: np.ndarray, index: int, epoch: int) -> NumpyBatch:
        """The batch of the rows, before batch ops."""
        source = isinstance(self.data, Source)
        if source and not self.sample_ops:  # the fast path: rows gathered at once
            return self.data.take(rows, self.generator(TAKE[self.mode], index))
        rng = self.generator(SAMPLES, TAKE[self.mode], index)
        if source:
            whole = self.data.take(rows, self.generator(TAKE[self.mode], index))
            samples = [{key: value[i] for key, value in whole.items()} for i in range(len(rows))]
        else:
            samples = [read(self.data, row, rng) for row in rows]
        return self.finish(samples, self.state(rng, epoch))

    def _trained(self) -> Numbered:
        data, size, steps = self.data, self.size, self.steps
        kept, order = -1, np.empty(0, np.int64)

        def batch_of(index: int) -> NumpyBatch:
            nonlocal kept, order
            epoch, step = divmod(index, steps)
            if epoch != kept:
                whole = order_of(data, self.on_all_ranks(SHUFFLE, epoch))
                kept, order = epoch, whole.reshape(-1, self.block)[self.rank :: self.world].reshape(-1)
            return self._made(order[step * size : (step + 1) * size], index, epoch)

        return batch_of

    def _evaluated(self) -> Numbered:
        order = order_of(self.data, None) if hasattr(self.data, "order") else None
        return lambda index: self._ordered(index, order)

    def _ordered(self, index: int, order: np.ndarray | None) -> NumpyBatch:
        """One batch of a pass in order, filled up with its first row, where "mask" is 0, and with others' defaults."""
        first = self.size * index
        rows = np.arange(first, min(first + self.size, len(self.data)))
        rows = rows if order is None else order[rows]
        real = np.zeros(self.size, np.float32)
        real[: len(rows)] = 1
        rows = np.concatenate([rows, np.full(self.size - len(rows), rows[0] if len(rows) else 0)])
        batch = self._made(rows, index, 0)
        batch["mask"] = real * batch["mask"] if "mask" in batch else real
        for op in self.others:
            batch |= defaults(op, batch)
        return batch

    def _transformed(self, before: Numbered, number: int, op: Any) -> Numbered:
        """Batch number -> batch after one op more; keeps the last group of `span` batches."""
        width, kept, group = span(op), -1, []

        def batch_of(index: int) -> NumpyBatch:
            nonlocal kept, group
            turn, place = divmod(index, width)
            if turn != kept:
                parts = [before(turn * width + k) for k in range(width)]
                joined = parts[0] if width == 1 else {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
                result = self.changed(joined, number, op, turn)
                kept, group = turn, [result] if width == 1 else parted(result, width)
            return group[place]

        return batch_of

    def changed(self, batch: NumpyBatch, number: int, op: Any, turn: int) -> NumpyBatch:
        """The batch after a batch op; UsageError where a NumpyOp changes the number of rows or filters."""
        train = self.mode == "train"
        rng = self.generator(OPS, number, turn) if train else self.generator(LATER_OPS, TAKE[self.mode], number, turn)
        if not isinstance(op, NumpyOp):
            return op(batch, rng)
        count, batch = len(next(iter(batch.values()))), dict(batch)
        epoch = turn // self.steps if train and self.data is not None else 0
        if applied(op, batch, self.state(rng, epoch), batched=True) is not None:
            raise UsageError(f"{type(op).__name__} stands after Batch; what filters samples must stand before it.")
        for name, value in batch.items():
            if np.ndim(value) == 0 or len(value) != count:
                raise UsageError(
                    f"{type(op).__name__} made {name!r} of shape {np.shape(value)}; needed: {count} rows, as before it."
                )
        return batch


def divided(
    ops: Sequence[Any], mode: str, ds_id: str
) -> tuple[list[NumpyOp], Batch, list[tuple[int, Any]], list[BatchOp]]:
    """The ops of a mode and data set: those of samples, the `Batch`, those of batches (numbered), plain ones left out.

    Batches begin at `Batch`, or else before the first plain op; plain ops belong to mode "train" unless they have a
    `mode` of their own.
    """
    before, after, left, batch = [], [], [], None
    for number, op in enumerate(ops):
        plain = not isinstance(op, NumpyOp)
        if not (active(getattr(op, "mode", "train"), mode) and active(getattr(op, "ds_id", None), ds_id)):
            left += [op] if plain else []
        elif isinstance(op, Batch):
            if batch is not None or after:
                raise UsageError(
                    f"there are two Batch ops in mode {mode}, or one after a batch op; needed: one at most."
                )
            batch = op
        elif plain or batch is not None or after:
            after.append((number, op))
        else:
            before.append(op)
    return before, batch or Batch(), after, left


def parted(batch: NumpyBatch, count: int) -> list[NumpyBatch]:
    """A batch as `count` batches of equal length."""
    size = len(next(iter(batch.values()))) // count
    return [{key: value[i * size : (i + 1) * size] for key, value in batch.items()} for i in range(count)]


def span(op: Any) -> int:
    """How many consecutive batches an op wants as one; 1 unless it says otherwise."""
    return getattr(op, "span", 1)


def defaults(op: BatchOp, batch: NumpyBatch) -> NumpyBatch:
    """The keys that a batch which the op does not change gets for those it would write; none unless it says so."""
    return getattr(op, "defaults", lambda batch: {})(batch)
