"""The one counter of bests: what EarlyStopping, ReduceLROnPlateau and BestModelSaver mean by better."""

import math
from typing import Any

from runtime.errors import UsageError


class Best:
    """The best value so far, and how often in a row there was none better.

    A value is better where it is finite and lies more than min_delta beyond the best before; NaN and both infinities
    never are, since a metric that is not finite comes of broken numbers. compare: "min" or "max". baseline: the value
    to be beaten first. Raises UsageError for another compare.
    """

    def __init__(self, compare: str, min_delta: float = 0.0, baseline: float | None = None, argument: str = "compare"):
        if compare not in ("min", "max"):
            raise UsageError(f'{argument} must be "min" or "max", got {compare!r}.')
        self.sign, self.min_delta, self.wait = (1 if compare == "min" else -1), abs(min_delta), 0
        self.value = self.sign * math.inf if baseline is None else float(baseline)

    @property
    def found(self) -> bool:
        """Whether there is a best value."""
        return math.isfinite(self.value)

    def improved(self, value: float) -> bool:
        """Takes a value in; whether it is the new best."""
        better = math.isfinite(value) and self.sign * value + self.min_delta < self.sign * self.value
        self.wait = 0 if better else self.wait + 1
        self.value = value if better else self.value
        return better

    def state_dict(self) -> dict[str, Any]:
        """JSON-able; null where there is no best."""
        return {"best": self.value if self.found else None, "wait": self.wait}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.value = self.sign * math.inf if state["best"] is None else state["best"]
        self.wait = state["wait"]
