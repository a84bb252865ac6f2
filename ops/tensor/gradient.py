"""Gradients of a key with respect to earlier keys, and the attack made of their signs."""

from collections.abc import Sequence

import mlx.core as mx

from runtime.errors import UsageError
from runtime.op import Context, Op, TensorOp, as_tuple

Names = str | Sequence[str] | None


class Watch(TensorOp):
    """Marks keys (B, ...) whose gradients a later GradientOp or FGSM takes; needed for what an op has written.

    A key of the batch that no op writes needs no Watch. Ops between Watch and the gradient must not write the key.
    """

    def __init__(self, inputs: Names, mode: Names = None, ds_id: Names = None):
        super().__init__(list(as_tuple(inputs)), list(as_tuple(inputs)), mode, ds_id)

    def forward(self, data: list[mx.array], state: Context) -> list[mx.array]:
        """The arrays themselves; in the second run the values that the gradient is taken at."""
        return [state.changed.get(name, x) for name, x in zip(self.inputs, data, strict=True)]


def gradient(op: Op, source: mx.array, name: str, final: str, state: Context) -> mx.array:
    """d sum(final) / d name, of name's shape, where `op` stands: the graph runs again up to it from a new `name`.

    Random numbers (dropout) are those of the first run. No gradient passes through the result. Inside of a Repeat the
    second run is a first pass from the new value: other keys that passes change are as at the start. UsageError where
    an op writes `name` and no Watch stands behind it.
    """
    if state.run is None:
        raise UsageError(f"the gradient of {final} needs the graph to run again: use this op inside a Network.")
    run = state.run

    def total(x: mx.array) -> mx.array:
        found = run({name: x}, op)
        if found.get(name) is not x:
            raise UsageError(
                f"{final} can't be differentiated by {name}, which an op writes; put Watch({name!r}) after it."
            )
        return found[final].sum()

    return mx.stop_gradient(mx.grad(total)(mx.stop_gradient(source)))


class GradientOp(TensorOp):
    """Writes the gradient (B, ...) of each of `finals` by the key (B, ...) of its place in `inputs`.

    The key is one of the batch, or watched. finals: a number, or one a row (B,), of which the sum is taken.
    """

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
        return [gradient(self, source, name, final, state) for source, name, final in pairs]


class FGSM(TensorOp):
    """x + epsilon sign(d loss / d x) of x (B, ...), kept in [clip_low, clip_high] (arXiv 1412.6572, section 4).

    data: a key of the batch, or a watched one. loss: a key that an earlier op writes. Bounds of None: the batch's own
    extremes.
    """

    def __init__(self, data: str, loss: str, outputs: str, epsilon: float = 0.01, clip_low: float | None = None,
                 clip_high: float | None = None, mode: Names = None, ds_id: Names = None):  # fmt: skip
        super().__init__([data, loss], outputs, mode, ds_id)
        self.epsilon, self.low, self.high = epsilon, clip_low, clip_high

    def forward(self, data: list[mx.array], state: Context) -> mx.array:
        """Of the data's shape."""
        x, (name, loss) = data[0], self.inputs
        moved = x + self.epsilon * mx.sign(gradient(self, x, name, loss, state))
        low = x.min() if self.low is None else self.low
        return mx.clip(moved, low, x.max() if self.high is None else self.high)
