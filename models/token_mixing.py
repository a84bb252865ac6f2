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
    each = (cotangent @ x.swapaxes(1, 2)).reshape(len(x), -1)
    # summed as a product: MLX rounds its own sums of bf16 at each addition
    return (mx.ones((1, len(x)), each.dtype) @ each).reshape(w.shape), w.T @ cotangent


@_from_left.vmap
def _(inputs, axes):
    return mx.vmap(mx.matmul, in_axes=axes)(*inputs), 0


from_left = cast(Callable[[mx.array, mx.array], mx.array], _from_left)  # w (O, T), x (B, T, D) -> (B, O, D)


def sums(x: mx.array) -> mx.array:
    """The sums over the tokens, (B, T, D) -> (B, 1, D); not a product with ones, which an H200 took longer for."""
    return x.sum(axis=1, keepdims=True)


@lru_cache
def _normalised(length: int, eps: float) -> Callable[[mx.array, mx.array], tuple[mx.array, mx.array]]:
    def plain(x, branch):
        wide = apart(x).astype(mx.float32) + apart(branch).astype(mx.float32)
        factor = mx.rsqrt(sums(wide.square()) / length + eps)
        return ((x + branch).astype(mx.float32) * factor).astype(x.dtype), factor

    @custom_function
    def call(x, branch):
        return plain(mx.stop_gradient(x), mx.stop_gradient(branch))

    @call.vjp
    def _(_primals, cotangents, outputs):
        (dy, _), (y, factor) = cotangents, outputs
        mean = sums(apart(y).astype(mx.float32) * apart(dy).astype(mx.float32)) / length
        dx = (factor * (dy.astype(mx.float32) - y.astype(mx.float32) * mean)).astype(y.dtype)
        return dx, dx

    @call.vmap
    def _(inputs, axes):
        return mx.vmap(plain, in_axes=axes)(*inputs), (0, 0)

    return cast(Callable, call)


def rms_norm_tokens(x: mx.array, branch: mx.array, length: int, eps: float) -> mx.array:
    """x + branch, (B, T, D), over its root mean square along the tokens, of which the first `length` count.

    The others must be 0 and stay so. In float32 inside.
    """
    return _normalised(length, eps)(x, branch)[0]
