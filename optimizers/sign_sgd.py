"""Steps of one size along the gradient's sign, without state: what rows that are rarely met are trained with."""

from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optim

from runtime.errors import UsageError


class SignSGD(optim.Optimizer):
    """p <- p (1 - lr weight_decay) - lr sign(g).

    arXiv 1802.04434, algorithm 1, with decoupled weight decay: about what Adam does where a gradient comes once in a
    while. HRM and TRM train puzzle embeddings by it, with these defaults. Raises UsageError for a decay below 0.
    """

    elementwise = True  # every number alike, so that a parameter group may be one vector

    def __init__(self, learning_rate: float | Callable[[mx.array], mx.array] = 1e-2, weight_decay: float = 0.1):
        super().__init__()
        if weight_decay < 0:
            raise UsageError(f"SignSGD needs a weight_decay of at least 0, got {weight_decay}.")
        self._maybe_schedule("learning_rate", learning_rate)
        self.weight_decay = weight_decay

    def init_single(self, parameter: mx.array, state: dict) -> None:
        """Nothing is kept of a leaf."""

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        """The new leaf."""
        rate = self.learning_rate
        moved = parameter * (1 - rate * self.weight_decay) - rate * mx.sign(gradient)
        return moved.astype(parameter.dtype)
