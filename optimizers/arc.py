"""ARC, the autonomous learning-rate controller (arXiv 2106.08767), as a schedule for LRScheduler."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from optimizers.arc_network import CYCLES, FACTORS, POINTS, Controller, Cycle, features
from runtime.rate_controller import RateController

WEIGHTS = Path(__file__).resolve().parents[1] / "models" / "weights" / "arc.safetensors"


class ARC(RateController):
    """Every `frequency` epochs a network reads losses and rates of three cycles, and raises, keeps or lowers the rate.

    By 1.618 or .618; the first rate is the update's own. Evaluation losses are read where there are any. After a cycle
    with a loss that is not finite the rate falls. After arXiv 2106.08767, with a network, weights and examples of our
    own (scripts/train_arc.py). It was taught what is best for the cycle to come, a cycle being 7 to 13% of a run.
    """

    def __init__(self, frequency: int = 3):
        super().__init__(frequency)
        self.cycles: list[Cycle] = []
        self._begin()

    def _begin(self) -> None:
        self.sums, self.counts = np.zeros(POINTS), np.zeros(POINTS, int)
        self.evals: list[float] = []
        self.broken = False  # whether a loss of the open cycle was not finite

    def train_loss(self, loss: float, progress: float) -> None:
        """Adds to the mean of the part of the cycle that this step belongs to."""
        if not math.isfinite(loss):
            self.broken = True
            return
        part = min(int(progress * POINTS), POINTS - 1)
        self.sums[part] += loss
        self.counts[part] += 1

    def eval_loss(self, loss: float) -> None:
        """Keeps the loss."""
        self.broken |= not math.isfinite(loss)
        self.evals.append(float(loss))

    def multiplier(self, rate: float) -> float:
        """One of 1.618, 1 and .618."""
        train = np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1), np.nan)
        self.cycles = [*self.cycles, Cycle(train.tolist(), self.evals, rate)][-CYCLES:]
        broken = self.broken
        self._begin()
        if broken:
            return FACTORS[-1]
        with mx.stream(mx.cpu):
            scores = _shipped()(mx.array(features(self.cycles))[None])[0]
            return FACTORS[int(np.argmax(np.array(scores)))]

    def state_dict(self) -> dict[str, Any]:
        """The closed cycles and what there is of the open one."""
        return {"cycles": self.cycles, "sums": self.sums.tolist(), "counts": self.counts.tolist(), "evals": self.evals,
                "broken": self.broken}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.cycles = [Cycle(*cycle) for cycle in state["cycles"]]
        self.sums, self.counts = np.array(state["sums"]), np.array(state["counts"], int)
        self.evals, self.broken = list(state["evals"]), state["broken"]


@cache
def _shipped() -> Controller:
    """The trained network."""
    network = Controller()
    arrays: Any = mx.load(str(WEIGHTS))
    network.load_weights([(name, array.astype(mx.float32)) for name, array in arrays.items()])
    mx.eval(network.parameters())
    return network
