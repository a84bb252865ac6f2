"""Ends runs that a search has no hope for."""

from collections.abc import Callable
from typing import Any

from runtime.errors import UsageError
from traces.trace import Trace


class Prune(Trace):
    """Tells `report(value, step)` each value of `monitor` that is logged; when it answers True the run ends, unjudged.

    A search that prunes gives `report` (training/search/optuna.py). UsageError for a value that is no number.
    """

    def __init__(self, report: Callable[[float, int], bool], monitor: str = "eval/loss"):
        super().__init__(mode="train")
        self.report, self.monitor, self.pruned = report, monitor, False

    def on_log(self, values: dict[str, Any]) -> None:
        """Reports the monitored value."""
        if self.monitor not in values:
            return
        value, step = values[self.monitor], self.estimator.step
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"Prune needs a number to monitor, got {self.monitor}={value!r}.")
        if not self.pruned and self.report(float(value), step):
            self.pruned = True
            self.estimator.stop(f"pruned: {self.monitor}={value:.6g} at step {step}", judge=False)
