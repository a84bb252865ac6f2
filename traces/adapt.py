"""Traces that change the course of a training."""

from typing import cast

from runtime.errors import UsageError
from traces.trace import Trace
from training.data import Data


class TerminateOnNaN(Trace):
    """Ends the run with an error once `patience` updates in a row were skipped for a loss or gradient not finite.

    Looks every `every` steps, since looking waits for the device.
    """

    def __init__(self, patience: int = 10, every: int = 10):
        super().__init__(mode="train")
        if patience < 1 or every < 1:
            raise UsageError(f"patience and every must be at least 1, got {patience} and {every}.")
        self.patience, self.every = patience, every

    def on_batch_end(self, data: Data) -> None:
        """Reads the streak of skipped updates."""
        estimator = self.estimator
        if estimator.step % self.every == 0 and (streak := cast(int, data["streak"].item())) >= self.patience:
            losses = ", ".join(f"{name}={data[name].item()}" for name in estimator.train_step.losses)
            raise UsageError(
                f"{streak} updates in a row up to step {estimator.step} had a loss or gradient that is not finite "
                f"({losses}); finite numbers are needed. The weights are those before the first of them; try a lower "
                "learning rate, clip=1.0 or precision=fp32."
            )
