"""Gradients of a key with respect to earlier keys, and the attack made of their signs."""

from collections.abc import Sequence

import mlx.core as mx

from runtime.errors import UsageError
from runtime.op import Context, TensorOp, as_tuple

Names = str | Sequence[str] | None


def gradient(source: mx.array, name: str, final: str, state: Context) -> mx.array:
    """d sum(final) / d name, of name's shape, by running the graph again from a new value of `name`.

    `name` must be a key of the batch: what an op writes is overwritten by the second run. Dropout keys are those of the
    first run. No gradient passes through the result.
    """
    if state.run is None:
        raise UsageError(f"the gradient of {final} needs the graph to run again: use this op inside a Network.")
    run = state.run

    def total(x: mx.array) -> mx.array:
        return run({name: x}, final)[final].sum()

    return mx.stop_gradient(mx.grad(total)(mx.stop_gradient(source)))


class GradientOp(TensorOp):
    """Writes the gradient of each of `finals` with respect to the batch key of the same place in `inputs`."""

    def __init__(self, finals: str | Sequence[str], outputs: str | Sequence[str], inputs: str | Sequence[str],
                 mode: Names = None, ds_id: Names = None):  # fmt: skip
        self.sources, self.finals = as_tuple(inputs), as_tuple(finals)
        super().__init__([*self.sources, *self.finals], list(as_tuple(outputs)), mode, ds_id)
        if not len(self.sources) == len(self.finals) == len(self.outputs):
            raise UsageError(f"GradientOp needs as many inputs as finals and outputs, got {len(self.sources)}, "
                             f"{len(self.finals)} and {len(self.outputs)}.")  # fmt: skip

    def forward(self, data: list[mx.array], state: Context) -> list[mx.array]:
        """Each of its input's shape."""
        pairs = zip(data, self.sources, self.finals, strict=False)
        return [gradient(source, name, final, state) for source, name, final in pairs]


class FGSM(TensorOp):
    """x + epsilon sign(d loss / d x), kept in [clip_low, clip_high] (arXiv 1412.6572, section 4).

    data: a key of the batch. loss: a key that an earlier op writes. Bounds of None are the batch's own extremes.
    """

    def __init__(self, data: str, loss: str, outputs: str, epsilon: float = 0.01, clip_low: float | None = None,
                 clip_high: float | None = None, mode: Names = None, ds_id: Names = None):  # fmt: skip
        super().__init__([data, loss], outputs, mode, ds_id)
        self.epsilon, self.low, self.high = epsilon, clip_low, clip_high

    def forward(self, data: list[mx.array], state: Context) -> mx.array:
        """Of the data's shape."""
        x, (name, loss) = data[0], self.inputs
        moved = x + self.epsilon * mx.sign(gradient(x, name, loss, state))
        low = x.min() if self.low is None else self.low
        return mx.clip(moved, low, x.max() if self.high is None else self.high)
