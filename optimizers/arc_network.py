"""The network that says whether a learning rate should rise, stay or fall, and what it reads."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

CYCLES = 3  # that it looks back on
POINTS = 32  # of a cycle's training loss
CHANNELS = 7
GOLDEN = 1.618
FACTORS = (GOLDEN, 1.0, 0.618)  # of the rate, by the network's outputs
FAR = 5.0  # standard deviations, beyond which losses all look alike


class Cycle(NamedTuple):
    """What is kept of a cycle: mean training losses of its POINTS equal parts, evaluation losses, and the rate."""

    train: Sequence[float]
    evals: Sequence[float]
    rate: float


def features(cycles: Sequence[Cycle]) -> np.ndarray:
    """What the network reads of the last cycles, oldest first: (CYCLES * POINTS, CHANNELS) float32.

    Invariant under a change of the losses' scale and zero and of the rates' scale. Channels: training losses
    standardised over all cycles and over the last one, evaluation losses standardised as the former and by themselves,
    whether there are any, log_1.618 of the rate over the last one, and whether the cycle is there. Values that are not
    finite are left out. Absent cycles are zero.
    """
    cycles = cycles[-CYCLES:]
    out = np.zeros((CYCLES, POINTS, CHANNELS), np.float32)
    train = np.array([_filled(cycle.train) for cycle in cycles], np.float64)
    evals = [_stretched(cycle.evals) for cycle in cycles]
    known = [values for values in evals if values is not None]
    own = np.concatenate(known) if known else np.zeros(1)
    for place, cycle in enumerate(cycles, CYCLES - len(cycles)):
        row, values = out[place], evals[place - CYCLES + len(cycles)]
        row[:, 0] = _standard(train[place - CYCLES + len(cycles)], train)
        row[:, 1] = _standard(train[place - CYCLES + len(cycles)], train[-1])
        if values is not None:
            row[:, 2], row[:, 3], row[:, 4] = _standard(values, train), _standard(values, own), 1
        row[:, 5] = math.log(cycle.rate / cycles[-1].rate) / math.log(GOLDEN) if cycle.rate > 0 else 0
        row[:, 6] = 1
    return out.reshape(-1, CHANNELS)


def _filled(values: Sequence[float]) -> np.ndarray:
    """(POINTS,) values, those that are not finite interpolated from the others."""
    given = np.asarray(values, np.float64)
    finite = np.isfinite(given)
    if not finite.any():
        return np.zeros(POINTS)
    return np.interp(np.arange(POINTS), np.flatnonzero(finite), given[finite])


def _stretched(values: Sequence[float]) -> np.ndarray | None:
    """(POINTS,) steps through the finite ones of a cycle's evaluation losses, None where there are none."""
    finite = [float(value) for value in values if math.isfinite(value)]
    return np.array(finite)[np.arange(POINTS) * len(finite) // POINTS] if finite else None


def _standard(values: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Values less the mean over the deviation of `whole`, held within FAR."""
    deviation = max(whole.std(), 1e-7 * abs(whole.mean()), 1e-30)  # below this, differences are rounding
    return np.clip((values - whole.mean()) / deviation, -FAR, FAR)


class Controller(nn.Module):
    """A linear layer on quarters of cycles, an LSTM and two linear layers: features (B, N, CHANNELS) -> scores (B, 3).

    N is CYCLES * POINTS. The scores tell what each of FACTORS saves, in log losses over 0.05 against their mean.
    """

    def __init__(self, width: int = 32, hidden: int = 48):
        super().__init__()
        self.first = nn.Linear(POINTS // 4 * CHANNELS, width)
        self.memory = nn.LSTM(width, hidden)
        self.middle = nn.Linear(hidden, width)
        self.last = nn.Linear(width, len(FACTORS))

    def __call__(self, x: mx.array) -> mx.array:
        """The scores; the factor of the largest is the one to take."""
        states, _ = self.memory(nn.relu(self.first(x.reshape(len(x), 4 * CYCLES, -1))))
        return self.last(nn.relu(self.middle(states[:, -1])))
