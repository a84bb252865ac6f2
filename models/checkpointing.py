"""Gradient checkpointing (arXiv 1604.06174) that is right under jvp too, which mx.checkpoint is not.

MLX's own gives wrong gradients, without a word, where a jvp of the checkpointed function is differentiated.
"""

from collections.abc import Callable, Sequence
from typing import cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from runtime.custom import custom_function
from runtime.errors import UsageError

Function = Callable[..., mx.array]


def recomputed(function: Function) -> Function:
    """`function` of arrays with one output, its insides computed anew for the gradient instead of kept.

    Every array it depends on must be an argument, of a floating dtype. Works under grad, jvp, grad of jvp, vmap
    (which keeps everything) and compile.
    """

    @custom_function
    def call(*arrays):
        # without stop_gradient MLX would differentiate this body instead
        return function(*map(mx.stop_gradient, arrays))

    @call.jvp
    def _(primals, tangents):
        moving = [i for i, tangent in enumerate(tangents) if tangent is not None]
        return slope_of(function, moving)(*primals, *(tangents[i] for i in moving))

    @call.vjp
    def _(primals, cotangent, _output):
        # First dependence: the second pass is neither merged with the first nor run before its time. Second: it is
        # over, with all it computed, before the gradient goes on to what came before.
        gradients = mx.vjp(function, mx.depends(list(primals), [cotangent]), [cotangent])[1]
        return mx.depends(gradients, gradients)

    @call.vmap
    def _(arrays, axes):
        return mx.vmap(function, in_axes=axes)(*arrays), 0

    return cast(Function, call)


def slope_of(function: Function, moving: Sequence[int]) -> Function:
    """(arrays, tangents of the arrays at `moving`) -> the directional derivative, recomputed for its own gradient."""

    def slope(*both: mx.array) -> mx.array:
        primals, tangents = both[: len(both) - len(moving)], both[len(both) - len(moving) :]

        def of_moving(*some: mx.array) -> mx.array:
            arrays = list(primals)
            for place, value in zip(moving, some, strict=True):
                arrays[place] = value
            return function(*arrays)

        return mx.jvp(of_moving, [primals[i] for i in moving], list(tangents))[1][0]

    return recomputed(slope) if moving else slope


def checkpointed(block: nn.Module, *inputs: mx.array | None) -> mx.array:
    """block(*inputs), of which the backward pass keeps the inputs alone; a second forward pass is the price.

    inputs: floating arrays (B, ...) are differentiated; others (None, a PRNG key) are handed through. The block must
    give one array; raises UsageError where it changes its own state, as BatchNorm does: restored weights would undo it.
    """
    held = block.parameters()
    names, weights = zip(*tree_flatten(held), strict=True)
    places = [i for i, value in enumerate(inputs) if value is not None and mx.issubdtype(value.dtype, mx.floating)]

    def run(*arrays: mx.array) -> mx.array:
        block.update(tree_unflatten(list(zip(names, arrays[: len(names)], strict=True))))
        given = list(inputs)
        for place, value in zip(places, arrays[len(names) :], strict=True):
            given[place] = value
        out = block(*given)
        after = tree_flatten(block.parameters())
        changed = [name for (name, now), was in zip(after, arrays, strict=False) if now is not was]
        block.update(held)
        if changed:
            raise UsageError(f"checkpointed blocks run twice and must keep no state, got {type(block).__name__}, which "
                             f"changes {changed[0]}: build the model with checkpoint=false.")  # fmt: skip
        return out

    return recomputed(run)(*weights, *(inputs[i] for i in places))
