"""How the processes of one training stop at the same step, and follow what the traces of rank 0 decide."""

import signal

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError
from runtime.op import Batch
from runtime.slots import snapshot, write
from runtime.world import World
from training.step import TrainStep

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A signal asked the run to stop; the state was saved first. `signal` is its number."""

    def __init__(self, signal: int):
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


class Agreement:
    """What all processes know alike: `ended` (one asked to stop) and `signal` (one got a signal), 0 for none.

    Wishes travel with the step's means and are heeded a step later, so that nobody waits for them. What the traces of
    rank 0 decide at the end of an epoch or in an evaluation is known at once.
    """

    def __init__(self, world: World):
        self.world, self.ended, self.signal = world, False, 0

    def asks(self, stop: bool, number: int) -> int | None:
        """This process's wishes as bits, to stop the lowest, None where it is alone; number: of its signal, or 0."""
        wishes = [stop, *(number == own for own in SIGNALS)]
        return sum(int(wish) << i for i, wish in enumerate(wishes)) if self.world.many else None

    def heed(self, wished: mx.array) -> None:
        """Takes the wishes of all, in the bits of `asks`, if there are others."""
        if not self.world.many:
            return
        bits = np.asarray(wished).item()
        stop, *signals = (bits >> i & 1 for i in range(1 + len(SIGNALS)))
        self.ended |= bool(stop)
        self.signal = next((int(own) for own, got in zip(SIGNALS, signals, strict=True) if got), self.signal)

    def follow(self, step: TrainStep, held: Batch, stop: bool) -> None:
        """Takes from rank 0 whether to stop, and the arrays of the step's state that are no longer those `held`."""
        now = snapshot(step.state)
        changed = [path for path, array in now.items() if array is not held[path]]
        said = self.world.told({"stop": stop, "changed": changed})
        self.ended |= said["stop"]
        if shards := [path for path in said["changed"] if path in step.shards]:
            raise UsageError(f"a trace of process 0 has changed {shards[0]}, which is sharded; use strategy=data.")
        arrays = self.world.sent({path: now[path] for path in said["changed"]})
        if self.world.rank:
            write(step.state, arrays)
