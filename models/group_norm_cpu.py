"""Group normalisation, its gradient and its jvp on a CPU: sums over pixels as products with ones, few fused passes.

    y = act(A xhat + D),   xhat = (x - mean) / std over a group's channels and all pixels
    A = weight (1 + scale),   D = bias (1 + scale) + shift,   modulation (B, 2C) holds scale and shift, if it is there

MLX's own sums over pixels and 8 neighbouring channels take 1 ns a number, a product with a row of ones takes .2.
"""

from functools import lru_cache

import mlx.core as mx
import numpy as np

from models import elementary
from models.derived import filled
from models.elementary import apart, silu_slope
from models.ones import ones


@lru_cache(64)
def averages(channels: int, groups: int, pixels: int, dtype: mx.Dtype) -> mx.array:
    """What makes sums over pixels the means of each channel's group, (C, C)."""
    per = channels // groups
    return mx.array(np.kron(np.eye(groups), np.full((per, per), 1 / (per * pixels))), dtype)


class Rows:
    """Sums and means over the pixels of arrays (B, P, C), as rows (B, 1, C) with a number for every channel."""

    def __init__(self, x: mx.array, groups: int):
        self.ones = ones(x.shape[1], x.dtype)
        self.averages = averages(x.shape[2], groups, x.shape[1], x.dtype)

    def sums(self, x: mx.array) -> mx.array:
        """Over the pixels, (B, P, C) -> (B, 1, C)."""
        return self.ones @ x

    def means(self, x: mx.array) -> mx.array:
        """Over the pixels and a group's channels, (B, P, C) -> (B, 1, C)."""
        return self.sums(x) @ self.averages

    def standard(self, x: mx.array, eps: float) -> list[mx.array]:
        """R and Q (B, 1, C) of xhat = R x + Q."""
        mean = self.means(x)
        rstd = mx.rsqrt(self.means(mx.square(x - mean)) + eps)
        return [alone(rstd), alone(-mean * rstd)]


def alone(x: mx.array) -> mx.array:
    """x (...) in a kernel of its own and in memory.

    mx.compile computes a row in every kernel that uses it, for every pixel; and GCC vectorises loops over pixels and
    rows, but not with exponentials in them.
    """
    return mx.contiguous(x)


def affine(weight, bias, modulation=None) -> list[mx.array]:
    """A and D, (C,) or with a modulation (B, 1, C)."""
    if modulation is None:
        return [weight, bias]
    scale, shift = mx.split(modulation[:, None], 2, axis=-1)
    return [weight * (1 + scale), bias * (1 + scale) + shift]


def forward(x, *given, groups: int, eps: float, silu: bool) -> list[mx.array]:
    """y like x (B, H, W, C), and R and Q, (B, 2, C); given: weight, bias, modulation."""
    flat, (a, d) = x.flatten(1, 2), affine(*given)
    r, q = Rows(flat, groups).standard(flat, eps)
    z = flat * alone(a * r) + alone(a * q + d)
    return [(elementary.silu(alone(z)) if silu else z).reshape(x.shape), mx.concatenate([r, q], axis=1)]


def backward(x, *rest, groups: int, silu: bool) -> list[mx.array]:
    """Gradients by x, weight, bias and modulation of the sum of g y; rest: all but x, R and Q, g."""
    *given, standard, g = rest
    (a, d), r, q = affine(*given), standard[:, :1], standard[:, 1:]
    flat, g = x.flatten(1, 2), g.flatten(1, 2)
    rows, scale = Rows(flat, groups), alone(a * r)
    if silu:
        g = g * silu_slope(alone(apart(flat) * scale + alone(a * q + d)))  # apart: not the node that the value has
    by_a, by_d = rows.sums(g * (flat * r + q)), rows.sums(g)
    turn, level = (a * by_a) @ rows.averages, (a * by_d) @ rows.averages
    # r (a g - level - xhat turn)
    dx = g * scale + apart(flat, swapped=True) * alone(-r * r * turn) + alone(-r * (level + q * turn))
    if len(given) == 2:
        return [dx.reshape(x.shape), by_a.sum(axis=(0, 1)), by_d.sum(axis=(0, 1))]
    weight, bias, modulation = given
    factor = 1 + modulation[:, None, : x.shape[-1]]
    by_modulation = mx.concatenate([by_a * weight + by_d * bias, by_d], axis=-1).squeeze(1)
    return [dx.reshape(x.shape), *((by * factor).sum(axis=(0, 1)) for by in (by_a, by_d)), by_modulation]


def tangent(arrays, tangents, groups: int, eps: float, silu: bool) -> mx.array:
    """The jvp of y at arrays (x, weight, bias, modulation if any) along tangents, None where they don't move."""
    x, *given = arrays
    t, *along = filled(arrays, tangents)
    (a, d), (ta, td) = mx.jvp(affine, given, along)
    flat, t = x.flatten(1, 2), t.flatten(1, 2)
    rows = Rows(flat, groups)
    r, q = rows.standard(flat, eps)
    scale = alone(a * r)
    turn, level = rows.means(t * (flat * r + q)), rows.means(t)
    # A r (t - level - xhat turn) + tA xhat + tD
    by_xhat = ta - scale * turn
    rest = alone(by_xhat * q + td - scale * level)
    tz = alone(t * scale + apart(flat, swapped=True) * alone(by_xhat * r) + rest)
    return (tz * silu_slope(alone(apart(flat) * scale + alone(a * q + d))) if silu else tz).reshape(x.shape)
