"""A lower learning rate when a value gets no better."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from runtime.errors import UsageError
from traces.best import Best
from traces.trace import Trace
from training.data import Data, one_number


class ReduceLROnPlateau(Trace):
    """Multiplies a model's learning rate by `factor` after `patience` evaluations in a row without an improvement.

    metric: a loss or what an earlier trace wrote, of the same epoch; None for the loss that trains the model.
    best_mode: "min" or "max". The rate does not fall below min_lr by this. It is logged as eval/<output>, by default
    learning_rate. Raises UsageError for a factor outside (0, 1) or another best_mode.
    """

    def __init__(self, model: nn.Module, metric: str | None = None, patience: int = 10, factor: float = 0.1,
                 best_mode: str = "min", min_lr: float = 1e-6, output_name: str = "learning_rate"):  # fmt: skip
        super().__init__(inputs=metric, outputs=output_name, mode="eval")
        if not 0 < factor < 1:
            raise UsageError(f"factor must lie between 0 and 1, got {factor}.")
        self.model, self.metric, self.patience, self.factor, self.min_lr = model, metric, patience, factor, min_lr
        self.best = Best(best_mode, argument="best_mode")

    def on_epoch_end(self, data: Data) -> None:
        """Compares the value of this evaluation, and lowers the rate when the patience is over."""
        update = self.estimator.update_of(self.model)
        value = one_number(data, self.metric or update.loss_name)
        if self.best.improved(value) or self.best.wait < self.patience:
            return
        self.best.wait = 0
        planned = update.groups[-1].rate(mx.array(self.estimator.step)).item()
        rate = planned * update.state["scale"].item()
        lower = min(rate, max(self.min_lr, self.factor * rate))
        if planned > 0:
            update.state["scale"] = mx.array(lower / planned, mx.float32)
        data.write_with_log(self.outputs[0], lower)

    def state_dict(self) -> dict[str, Any]:
        """The best value and the wait; the factor is part of the update's state."""
        return self.best.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.best.load_state_dict(state)
