"""Exponential moving averages of a model's leaves."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from runtime.errors import UsageError


class Averages:
    """One average per decay: a <- d a + (1 - d) w after every update.

    warmup: d is at most (1 + n) / (10 + n) after n updates, so that short runs do not average their initial weights.
    state: {"updates": count, "<decay>": {path: array}}.
    """

    def __init__(self, decays: Sequence[float], leaves: dict[str, mx.array], warmup: bool = True):
        for decay in decays:
            if not 0 < decay < 1:
                raise UsageError(f"an EMA decay must lie between 0 and 1, got {decay}.")
        self.decays, self.warmup = tuple(decays), warmup
        self.state: dict[str, Any] = {}
        self.reset(leaves)

    def reset(self, leaves: dict[str, mx.array]) -> None:
        """Starts every average anew from these leaves."""
        self.state.update({str(decay): {p: mx.array(w) for p, w in leaves.items()} for decay in self.decays})
        if self.decays:
            self.state["updates"] = mx.array(0, mx.int32)

    def update(self, leaves: dict[str, mx.array]) -> None:
        """Takes new leaves into every average."""
        if not self.decays:
            return
        self.state["updates"] = self.state["updates"] + 1
        count = self.state["updates"].astype(mx.float32)
        for decay in self.decays:
            rate = mx.minimum(decay, (1 + count) / (10 + count)) if self.warmup else decay
            average = self.state[str(decay)]
            for path, leaf in leaves.items():
                average[path] = average[path] + (1 - rate) * (leaf - average[path])

    def leaves(self, decay: float | None = None) -> dict[str, mx.array]:
        """The averaged leaves of one decay, by default the first."""
        if not self.decays:
            raise UsageError("this run keeps no EMA (optimizer.ema is empty).")
        decay = self.decays[0] if decay is None else decay
        if decay not in self.decays:
            raise UsageError(f"this run keeps no EMA of decay {decay}; it keeps {self.decays}.")
        return self.state[str(decay)]
