"""A linear layer whose bias gradient isn't MLX's sum, which runs at a fraction of a GPU's bandwidth."""

import math
from collections.abc import Callable
from typing import cast

import mlx.core as mx
import mlx.nn as nn

from models import column_sums_cuda
from models.derived import derived
from models.ones import ones
from runtime.cuda_launch import available
from runtime.custom import custom_function
from runtime.quantized import QuantizedLinear

PARTS = 128  # partial sums of a column: enough blocks to fill a GPU


def column_sums(x: mx.array) -> mx.array:
    """The sum over all axes but the last, (..., C) -> (C,).

    By CUDA kernels where they fit, else as products of ones with up to 128 slices of the rows.
    """
    rows = x.reshape(-1, x.shape[-1])
    if available(x) and column_sums_cuda.fits(rows):
        return kernels(rows)[0]
    parts = math.gcd(len(rows), PARTS)
    return (ones(len(rows) // parts, x.dtype) @ rows.reshape(parts, -1, x.shape[-1])).sum(axis=(0, 1))


kernels = derived(lambda rows: [column_sums_cuda.tall(rows)], lambda rows: [rows.sum(axis=0)])


def plain(x: mx.array, w: mx.array, b: mx.array) -> mx.array:
    """x (..., I), w (O, I), b (O,) -> (..., O)."""
    return mx.addmm(b, x, w.T)


@custom_function
def affine(x, w, b):
    """The same with derivatives of its own; without stop_gradient MLX would differentiate this body instead."""
    return plain(mx.stop_gradient(x), mx.stop_gradient(w), mx.stop_gradient(b))


@affine.jvp
def _(primals, tangents):
    x, w, _ = primals
    dx, dw, db = tangents
    terms = [] if dx is None else [dx @ w.T]
    terms += [] if dw is None else [x @ dw.T]
    total = sum(terms[1:], terms[0]) if terms else mx.zeros((*x.shape[:-1], w.shape[0]), x.dtype)
    return total if db is None else total + db


@affine.vjp
def _(primals, cotangent, _output):
    x, w, _ = primals
    rows, grads = x.reshape(-1, x.shape[-1]), cotangent.reshape(-1, cotangent.shape[-1])
    return cotangent @ w, grads.T @ rows, column_sums(cotangent)


@affine.vmap
def _(inputs, axes):
    return mx.vmap(plain, in_axes=axes)(*inputs), 0


class Linear(nn.Linear):
    """nn.Linear, (..., I) -> (..., O), with a faster gradient of the bias (under vmap MLX's own)."""

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., inputs) -> (..., outputs)."""
        if "bias" not in self:
            return x @ self.weight.T
        return cast(Callable[..., mx.array], affine)(x, self.weight, self.bias)

    def to_quantized(self, group_size: int, bits: int, **_) -> QuantizedLinear:
        """The layer with its weight in whole numbers of `bits` bits; see runtime/quantized.py."""
        return QuantizedLinear(self, bits, group_size)
