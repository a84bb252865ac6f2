"""Ranges that searches draw from."""

import math
from dataclasses import dataclass

import numpy as np

from runtime.errors import UsageError


@dataclass(frozen=True)
class Interval:
    """Numbers from low to high; log: equally likely in every decade; integer: whole numbers, both ends included."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self):
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UsageError(f"an interval needs finite low < high, got {self.low} and {self.high}.")
        if self.log and self.low <= 0:
            raise UsageError(f"an interval in logarithms needs low > 0, got {self.low}.")
        if self.integer and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise UsageError(f"an interval of whole numbers needs whole ends, got {self.low} and {self.high}.")

    def draw(self, rng: np.random.Generator) -> float | int:
        """A random number of it."""
        if self.integer and not self.log:
            return int(rng.integers(int(self.low), int(self.high) + 1))
        low, high = (self.low - 0.5, self.high + 0.5) if self.integer else (self.low, self.high)
        value = math.exp(rng.uniform(math.log(low), math.log(high))) if self.log else float(rng.uniform(low, high))
        value = min(max(value, self.low), self.high)  # exp and log round, and whole numbers begin half below the ends
        return round(value) if self.integer else value
