"""Rows of an embedding that stay outside of compiled state: their number costs a step nothing."""

from typing import Any

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError


class Table:
    """An embedding (count, width) in float32, of which a step reads and writes the rows of its batch alone.

    As compiled state all of it would be read and written in every step. Rows start as draws of standard deviation
    `std`, from MLX's global random state, or as zeros. Raises UsageError for a count or width below 1.
    """

    def __init__(self, count: int, width: int, std: float = 0.0):
        if count < 1 or width < 1:
            raise UsageError(f"a table needs at least one row of one number, got count={count}, width={width}.")
        rows = std * mx.random.normal((count, width)) if std else mx.zeros((count, width))
        self.count, self.width = count, width
        self.state: dict[str, Any] = {"rows": rows}

    def __getitem__(self, ids: mx.array) -> mx.array:
        """The rows (B, width) of ids (B,), unevaluated; `check` the ids first."""
        return self.state["rows"][ids]

    def __setitem__(self, ids: mx.array, rows: mx.array) -> None:
        """Puts rows (B, width) at ids (B,), unevaluated; equal ids must bring equal rows.

        MLX writes in place if nobody holds the array at that time. A read of this very step still does until it is
        computed, so evaluate the table with the next step, not with this one; otherwise all of it is copied.
        """
        changed = mx.array(self.state["rows"])  # a name of its own: a snapshot keeps what it has
        changed[ids] = rows
        self.state["rows"] = changed

    def check(self, ids: mx.array, name: str) -> None:
        """Raises UsageError for ids (B,), computed already, that no row has: MLX would read and write elsewhere."""
        numbers = np.asarray(ids)
        if numbers.size and not (0 <= numbers.min() and numbers.max() < self.count):
            wrong = numbers[(numbers < 0) | (numbers >= self.count)][0]
            raise UsageError(
                f"the table has {self.count} rows, so {name!r} must lie in 0..{self.count - 1}, got {wrong}."
            )
