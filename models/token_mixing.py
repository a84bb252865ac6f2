"""Products along the tokens, the middle axis of (B, T, D), with derivatives of their own."""

from collections.abc import Callable
from typing import cast

import mlx.core as mx

from runtime.custom import custom_function


@custom_function
def _from_left(w, x):
    return mx.stop_gradient(w) @ mx.stop_gradient(x)


@_from_left.vjp
def _(primals, cotangent, _output):
    w, x = primals
    return _summed(cotangent @ x.swapaxes(1, 2)), w.T @ cotangent


@_from_left.vmap
def _(inputs, axes):
    return mx.vmap(mx.matmul, in_axes=axes)(*inputs), 0


@custom_function
def _across(w, x):
    return mx.stop_gradient(w).T @ mx.stop_gradient(x)


@_across.vjp
def _(primals, cotangent, _output):
    w, x = primals
    return _summed(x @ cotangent.swapaxes(1, 2)), w @ cotangent


@_across.vmap
def _(inputs, axes):
    return mx.vmap(lambda w, x: w.T @ x, in_axes=axes)(*inputs), 0


def _summed(each: mx.array) -> mx.array:
    # as a product: MLX rounds its own sums of bf16 at each addition
    return (mx.ones((1, len(each)), each.dtype) @ each.reshape(len(each), -1)).reshape(each.shape[1:])


# A product on a GPU is slow where the rows of an array aren't whole vectors of memory, as those of 97 bf16 numbers, be
# it a weight or a weight's gradient. So w has the tokens first here: then they are never an array's last axis.
across = cast(Callable[[mx.array, mx.array], mx.array], _across)  # w (T, O), x (B, T, D) -> (B, O, D)
from_left = cast(Callable[[mx.array, mx.array], mx.array], _from_left)  # w (T, I), x (B, I, D) -> (B, T, D)
