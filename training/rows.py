"""The rows of a table that a batch needs: read before the compiled step, a leaf in it, written back after it."""

import mlx.core as mx

from runtime.errors import UsageError
from runtime.op import Batch
from training.network import Network
from training.update import UpdateOp

ROWS, IDS = "rows", "ids"


class Lookup:
    """What a step does with the table of a network; nothing at all for one that has none."""

    def __init__(self, network: Network):
        self.op = network.looking_up
        self.update: UpdateOp | None = None
        self._before: mx.array | None = None  # the rows of the step before

    @classmethod
    def training(cls, network: Network, accumulate: int) -> "Lookup":
        """The one that also trains the rows; UsageError where table, `UpdateOp(table=...)` and accumulate don't fit."""
        made, updates = cls(network), [update for update in network.updates if update.rows is not None]
        if (made.op is None) != (len(updates) == 0) or len(updates) > 1:
            raise UsageError(
                f"a table (an embedding of puzzles, say) needs one UpdateOp with table=...; this network has "
                f"{'no' if made.op is None else 'a'} table and {len(updates)} such UpdateOps."
            )
        if updates and accumulate > 1:
            raise UsageError(f"a table is trained batch by batch: it needs accumulate=1, got {accumulate}.")
        made.update = updates[0] if updates else None
        return made

    def read(self, batch: Batch, carry: Batch) -> Batch:
        """The rows (B, E) for a batch and their ids (B,), on their way; UsageError for ids that no row has.

        The rows before must have been read by now (they came first in the step before, which goes on meanwhile): the
        table that they were read from is then free to be written in place.
        """
        if self.op is None or self.op.table is None:
            return {}
        self.op.table.check(batch[self.op.identifier], self.op.identifier)  # those of the carry were in a batch before
        ids = self.op.ids(batch | carry)
        if self._before is not None:
            mx.eval(self._before)
        rows = self._before = self.op.table[ids]
        mx.async_eval(rows)
        return {ROWS: rows, IDS: ids}

    def moved(self, gradients: dict[str, Batch], read: Batch, step: mx.array) -> Batch:
        """The new rows; equal ids get equal ones."""
        if self.update is None:
            return {}
        gradient = summed(gradients[ROWS][ROWS], read[IDS])
        return {ROWS: self.update.moved_rows(gradient, read[ROWS], step)}

    def write(self, read: Batch, rows: Batch) -> None:
        """Puts the new rows where the old ones were read."""
        if self.op is not None and self.op.table is not None and rows:
            self.op.table[read[IDS]] = rows[ROWS]


def summed(gradient: mx.array, ids: mx.array) -> mx.array:
    """In every row of a gradient (B, E) the sum over the rows of equal ids (B,), to the last bit the same for them."""
    same = ids[:, None] == ids[None]
    return (same.astype(gradient.dtype) @ gradient)[same.argmax(axis=1)]  # that of the first of them
