"""The sum of a layer's output and its bias: for float32 on a CPU, and on CUDA.

The gradient of a concatenation is a view, which a CPU's MLX sums over pixels at 4 to 9 ns a number and which everything
that reads it as rows copies anew: here it is copied once, and the sum is a product with ones. On CUDA MLX's sum over
pixels takes 1.2 to 9 times as long as `column_sums`.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import cast

import mlx.core as mx

from models.derived import linear_function
from models.linear import column_sums
from models.ones import ones
from runtime.custom import custom_function


def plain(y: mx.array, b: mx.array) -> mx.array:
    """The sum of y and a bias (O,)."""
    return y + b


@custom_function
def _biased(y, b):
    """The same with derivatives of its own; without stop_gradient MLX would differentiate this body instead."""
    return plain(mx.stop_gradient(y), mx.stop_gradient(b))


@_biased.jvp
def _(primals, tangents):
    dy, db = tangents
    if dy is None:
        return mx.broadcast_to(db, primals[0].shape)
    return dy if db is None else dy + db


@_biased.vjp
def _(_primals, cotangent, _output):
    gradient = mx.contiguous(cotangent)
    rows = gradient.reshape(-1, gradient.shape[-1])
    return gradient, (ones(len(rows), rows.dtype) @ rows).reshape(-1)


@_biased.vmap
def _(inputs, axes):
    return mx.vmap(plain, in_axes=axes)(*inputs), 0


biased = cast(Callable[[mx.array, mx.array], mx.array], _biased)


def spread(y: mx.array, b: mx.array) -> mx.array:
    """The sum of y (..., O) and a bias (O,), whose gradient is `column_sums`, for CUDA.

    The sum itself is MLX's own, which mx.compile joins with what follows.
    """
    return y + rows(y.shape)(b)


@lru_cache
def rows(shape: tuple[int, ...]) -> Callable[[mx.array], mx.array]:
    """f(b (O,)) -> b for every row of an array of that shape."""
    return linear_function(lambda b: mx.broadcast_to(b, shape), lambda b, g: column_sums(g).astype(b.dtype))
