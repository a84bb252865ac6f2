"""Gradients of a key with respect to earlier keys, and the attack made of their signs."""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from runtime.errors import UsageError
from runtime.op import Batch, Context, Op, TensorOp, as_tuple, by_name
from runtime.slots import snapshot, write

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


def rerun(op: Op, final: str, state: Context) -> Callable[[Batch], Batch]:
    """The graph up to `op` as a function of the data that it starts with; UsageError outside of a Network."""
    if state.run is None:
        raise UsageError(f"the gradient of {final} needs the graph to run again: use this op inside a Network.")
    run = state.run
    return lambda changed: run(changed, op)


def gradient(op: Op, source: mx.array, name: str, final: str, state: Context) -> mx.array:
    """d sum(final) / d name, of name's shape, where `op` stands: the graph runs again up to it from a new `name`.

    Random numbers (dropout) are those of the first run. No gradient passes through the result. Inside of a Repeat the
    second run is a first pass from the new value: other keys that passes change are as at the start. UsageError where
    an op writes `name` and no Watch stands behind it.
    """
    run = rerun(op, final, state)

    def total(x: mx.array) -> mx.array:
        found = run({name: x})
        if found.get(name) is not x:
            raise UsageError(
                f"{final} can't be differentiated by {name}, which an op writes; put Watch({name!r}) after it."
            )
        return found[final].sum()

    return mx.stop_gradient(mx.grad(total)(mx.stop_gradient(source)))


def weight_gradient(op: Op, model: nn.Module, final: str, state: Context) -> Batch:
    """d sum(final) / d leaf for every trainable leaf of a model, by its path, where `op` stands; see `gradient`."""
    run, held = rerun(op, final, state), snapshot(model)

    def total(leaves: Batch) -> mx.array:
        write(model, leaves)
        try:
            return run({})[final].sum()
        finally:
            write(model, held)

    leaves = {path: mx.stop_gradient(held[path]) for path, _ in tree_flatten(model.trainable_parameters())}
    return {path: mx.stop_gradient(found) for path, found in mx.grad(total)(leaves).items()}


class GradientOp(TensorOp):
    """Writes the gradient of each of `finals` by the key (B, ...) of its place in `inputs`, or by a model's weights.

    The key is one of the batch, or watched. finals: a number, or one a row (B,), of which the sum is taken. model, in
    the place of inputs: each output is a dictionary of its trainable leaves' gradients by path, as
    UpdateOp(gradients=...) takes it.
    """

    def __init__(self, finals: str | Sequence[str], outputs: str | Sequence[str], inputs: Names = None,
                 model: nn.Module | None = None, mode: Names = None, ds_id: Names = None):  # fmt: skip
        self.sources, self.finals, self.model = as_tuple(inputs), as_tuple(finals), model
        super().__init__([*self.sources, *self.finals], list(as_tuple(outputs)), mode, ds_id)
        if bool(self.sources) == (model is not None):
            raise UsageError(f"GradientOp needs either inputs or a model, got inputs={self.sources} and model={model}.")
        if len(self.finals) != len(self.outputs) or (self.sources and len(self.sources) != len(self.finals)):
            raise UsageError(f"GradientOp needs as many inputs as finals and outputs, got {len(self.sources)}, "
                             f"{len(self.finals)} and {len(self.outputs)}.")  # fmt: skip
        self.models = {} if model is None else by_name(model)

    def forward(self, data: list[mx.array], state: Context) -> list[Any]:
        """Each of its input's shape, or a dictionary."""
        if self.model is not None:
            return [weight_gradient(self, self.model, final, state) for final in self.finals]
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
