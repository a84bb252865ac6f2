"""Batch norm in bf16 too, whose sums over the batch are matrix products: MLX's are a fraction of a GPU's bandwidth."""

from collections.abc import Callable
from typing import cast

import mlx.core as mx
import mlx.nn as nn

from models.linear import column_sums
from runtime.custom import custom_function

Outputs = tuple[mx.array, mx.array, mx.array]


def plain(x: mx.array, w: mx.array, b: mx.array, eps: mx.array) -> Outputs:
    """x (..., C), w and b (C,) -> w (x - mean) / sqrt(var + eps) + b in x's dtype, mean and var (C,) in float32."""
    wide, count = x.astype(mx.float32), x.size // x.shape[-1]
    mean = column_sums(wide) / count
    var = column_sums(mx.square(wide - mean)) / count
    return ((wide - mean) * (w * mx.rsqrt(var + eps)) + b).astype(x.dtype), mean, var


@custom_function
def normalised(x, w, b, eps):
    """The same with derivatives of its own; without stop_gradient MLX would differentiate this body instead."""
    return plain(*map(mx.stop_gradient, (x, w, b, eps)))


@normalised.jvp
def _(primals, tangents):
    x, w, b, eps = primals
    dx, dw, db = (None if t is None else t.astype(mx.float32) for t in tangents[:3])
    wide, count = x.astype(mx.float32), x.size // x.shape[-1]
    _, mean, var = plain(x, w, b, eps)
    inverse = mx.rsqrt(var + eps)
    unit = (wide - mean) * inverse
    dy, dmean, dvar = mx.zeros_like(wide), mx.zeros_like(mean), mx.zeros_like(var)
    if dx is not None:
        dmean, along = column_sums(dx) / count, column_sums(unit * dx) / count
        dvar = 2 * along / inverse
        dy = dy + w * inverse * (dx - dmean - unit * along)
    dy = dy if dw is None else dy + unit * dw
    return (dy if db is None else dy + db).astype(x.dtype), dmean, dvar


@normalised.vjp
def _(primals, cotangents, outputs):
    x, w, b, eps = primals
    _, mean, var = outputs
    up, count = cotangents[0].astype(mx.float32), x.size // x.shape[-1]
    inverse = mx.rsqrt(var + eps)
    unit = (x.astype(mx.float32) - mean) * inverse
    db, dw = column_sums(up), column_sums(up * unit)
    dx = w * inverse * (up - (db + unit * dw) / count) + (cotangents[1] + 2 * cotangents[2] * unit / inverse) / count
    return dx.astype(x.dtype), dw.astype(w.dtype), db.astype(b.dtype), mx.zeros_like(eps)


@normalised.vmap
def _(inputs, axes):
    return mx.vmap(plain, in_axes=axes)(*inputs), (0, 0, 0)


class BatchNorm(nn.BatchNorm):
    """nn.BatchNorm over all axes but the last (arXiv 1502.03167), in bf16 too.

    momentum: share of a batch in the running statistics (0.1 as PyTorch has it); their variance is the unbiased one.
    In training mode the batch is normalised by its own statistics, else by the running ones.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """(B, ..., C) -> (B, ..., C) in x's dtype."""
        if not self.training:
            scale = self.weight * mx.rsqrt(self.running_var + self.eps)
            return ((x - self.running_mean) * scale + self.bias).astype(x.dtype)
        normalise = cast(Callable[..., Outputs], normalised)
        y, mean, var = normalise(x, self.weight, self.bias, mx.array(self.eps))
        count = x.size // x.shape[-1]
        keep, share = 1 - self.momentum, self.momentum
        self.running_mean = keep * self.running_mean + share * mean
        self.running_var = keep * self.running_var + share * count / max(count - 1, 1) * var
        return y
