"""Adam whose step is an arctangent of two arguments in place of a quotient, so that it needs no epsilon."""

from collections.abc import Callable, Sequence

import mlx.core as mx
import mlx.optimizers as optim

from runtime.errors import UsageError


class AdamATan2(optim.Optimizer):
    """p <- p (1 - lr weight_decay) - lr / (1 - b1^t) atan2(m, sqrt(v / (1 - b2^t))).

    The default settings are TRM's. arXiv 2407.05872, section 4.3, here without its two scale factors; the correction of
    m stands outside of the arctangent, as in the package imoneoi/adam-atan2, with which HRM and TRM were trained. For
    m = v = 0 the step is 0. States are float32. Raises UsageError for a beta outside of [0, 1) or a decay below 0.
    """

    elementwise = True  # every number alike, so that a parameter group may be one vector

    def __init__(self, learning_rate: float | Callable[[mx.array], mx.array], betas: Sequence[float] = (0.9, 0.95),
                 weight_decay: float = 0.1):  # fmt: skip
        super().__init__()
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise UsageError(f"AdamATan2 needs two betas of at least 0 and below 1, got {list(betas)}.")
        if weight_decay < 0:
            raise UsageError(f"AdamATan2 needs a weight_decay of at least 0, got {weight_decay}.")
        self._maybe_schedule("learning_rate", learning_rate)
        self.betas, self.weight_decay = tuple(betas), weight_decay

    def init_single(self, parameter: mx.array, state: dict) -> None:
        """Both moments of a leaf, 0."""
        state["m"] = mx.zeros(parameter.shape, mx.float32)
        state["v"] = mx.zeros(parameter.shape, mx.float32)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        """The new leaf; its moments move on."""
        (b1, b2), rate, gradient = self.betas, self.learning_rate, gradient.astype(mx.float32)
        state["m"] = m = b1 * state["m"] + (1 - b1) * gradient
        state["v"] = v = b2 * state["v"] + (1 - b2) * gradient.square()
        first, second = rate / (1 - b1**self.step), mx.rsqrt(1 - b2**self.step)
        moved = parameter * (1 - rate * self.weight_decay) - first * mx.arctan2(m, mx.sqrt(v) * second)
        return moved.astype(parameter.dtype)
