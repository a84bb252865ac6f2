"""Pooling and upsampling of images by factors of their size, (B, H, W, C)."""

from collections.abc import Callable
from functools import lru_cache, reduce
from typing import cast

import mlx.core as mx

from runtime.custom import custom_function


def places(x: mx.array, size: int) -> list[mx.array]:
    """The entries at each place of the size x size windows, row by row: views (B, H // size, W // size, C)."""
    rows, columns = x.shape[1] // size * size, x.shape[2] // size * size
    return [x[:, i:rows:size, j:columns:size] for i in range(size) for j in range(size)]


def first(x: mx.array, y: mx.array, size: int) -> mx.array:
    """Where in its window y, the largest entry, stands first: size^2 for the first place down to 1 for the last."""
    # Constants on both sides: selecting between arrays costs MLX's CPU kernels a mispredicted branch a number.
    found = [mx.where(place == y, float(size**2 - k), 0.0) for k, place in enumerate(places(x, size))]
    return reduce(mx.maximum, found)


@lru_cache(16)
def pooling(size: int) -> Callable[[mx.array], mx.array]:
    """`max_pool` of images whose sides are multiples of `size`."""

    def largest(x):
        return reduce(mx.maximum, places(x, size))

    @custom_function
    def call(x):
        # without stop_gradient MLX would differentiate this body instead
        return largest(mx.stop_gradient(x))

    @call.jvp
    def _(primal, tangent):
        x = mx.stop_gradient(primal)
        code = first(x, largest(x), size)
        return sum((code == size**2 - k) * place for k, place in enumerate(places(tangent, size)))

    @call.vjp
    def _(primal, cotangent, output):
        code = first(mx.stop_gradient(primal), mx.stop_gradient(output), size)
        count, rows, columns, channels = code.shape
        numbers = mx.arange(size**2, 0, -1).astype(code.dtype).reshape(size, 1, size, 1)
        # by reshape: vmap of two axes inserted at once is wrong in MLX 0.32 where the last axis is mapped
        code, cotangent = (v.reshape(count, rows, 1, columns, 1, channels) for v in (code, cotangent))
        return ((numbers == code) * cotangent).reshape(count, rows * size, columns * size, channels)

    @call.vmap
    def _(x, axis):
        stacked = mx.moveaxis(x, axis, 0)
        return mx.unflatten(cast(Callable, call)(stacked.flatten(0, 1)), 0, stacked.shape[:2]), 0

    return cast(Callable[[mx.array], mx.array], call)


def max_pool(x: mx.array, size: int = 2) -> mx.array:
    """The largest of each size x size window, (B, H, W, C) -> (B, H // size, W // size, C); a remainder is cut off.

    Of several largest entries the first, row by row, has the gradient, as in PyTorch. Compiled for a CPU, value and
    gradient of 128 x 26 x 26 x 32 took 6.5 ms, those of MLX's own pooling 11.5.
    """
    return pooling(size)(x[:, : x.shape[1] // size * size, : x.shape[2] // size * size])


def doubling(length: int, dtype: mx.Dtype) -> mx.array:
    """The matrix (2 length, length) that interpolates linearly between values whose first and last stay in place."""
    step = (length - 1) / (2 * length - 1)
    place = mx.arange(2 * length) * step
    return mx.maximum(1 - mx.abs(place[:, None] - mx.arange(length)), 0).astype(dtype)


def double_bilinear(x: mx.array) -> mx.array:
    """Bilinear upsampling with aligned corners, (B, H, W, C) -> (B, 2H, 2W, C)."""
    count, height, width, channels = x.shape
    tall = doubling(height, x.dtype) @ x.reshape(count, height, width * channels)
    return doubling(width, x.dtype) @ tall.reshape(count * 2 * height, width, channels).reshape(
        count, 2 * height, width, channels
    )
