"""Products and RMS norms along the tokens, the middle axis of (B, T, D), with derivatives of their own.

What they are about is passes over memory. mx.compile merges equal operations, and one that two kernels share gets a
kernel of its own; `apart` keeps operations apart that are cheaper done twice.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import cast

import mlx.core as mx

from models.elementary import apart
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


@mx.custom_function
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


def sums(x: mx.array) -> mx.array:
    """The sums over the tokens, (B, T, D) -> (B, 1, D); not a product with ones, which an H200 took longer for."""
    return x.sum(axis=1, keepdims=True)


@lru_cache
def _normalised(eps: float) -> Callable[[mx.array, mx.array], tuple[mx.array, mx.array]]:
    def plain(x, branch):
        wide = apart(x).astype(mx.float32) + apart(branch).astype(mx.float32)
        factor = mx.rsqrt(sums(wide.square()) / x.shape[1] + eps)
        return ((x + branch).astype(mx.float32) * factor).astype(x.dtype), factor

    @custom_function
    def call(x, branch):
        return plain(mx.stop_gradient(x), mx.stop_gradient(branch))

    @call.vjp
    def _(_primals, cotangents, outputs):
        (dy, _), (y, factor) = cotangents, outputs
        mean = sums(apart(y).astype(mx.float32) * apart(dy).astype(mx.float32)) / y.shape[1]
        dx = (factor * (dy.astype(mx.float32) - y.astype(mx.float32) * mean)).astype(y.dtype)
        return dx, dx

    @call.vmap
    def _(inputs, axes):
        return mx.vmap(plain, in_axes=axes)(*inputs), (0, 0)

    return cast(Callable, call)


def rms_norm_tokens(x: mx.array, branch: mx.array, eps: float) -> mx.array:
    """x + branch, (B, T, D), over its root mean square along the tokens, in float32 inside."""
    return _normalised(eps)(x, branch)[0]
