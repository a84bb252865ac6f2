"""Group normalisation, its gradient and its jvp on a CPU: sums over pixels as products with ones, few fused passes.

    y = act(A xhat + D),   xhat = (x - mean) / std over a group's channels and all pixels
    A = weight (1 + scale),   D = bias (1 + scale) + shift,   modulation (B, 2C) holds scale and shift, if it is there

MLX's own sums over pixels and 8 neighbouring channels take 1 ns a number, a product with a row of ones takes .2.
"""

import mlx.core as mx

from models import elementary
from models.derived import filled
from models.elementary import apart, silu_slope


def sums(x: mx.array) -> mx.array:
    """Over the pixels, (B, P, C) -> (B, 1, C)."""
    return mx.ones((1, x.shape[1]), x.dtype) @ x


def means(totals: mx.array, groups: int, pixels: int) -> mx.array:
    """Of groups, from the sums of their channels, (B, 1, C) -> (B, 1, groups)."""
    per = totals.shape[-1] // groups
    return totals.reshape(len(totals), 1, groups, per).sum(axis=-1) / (per * pixels)


def spread(rows: mx.array, per: int) -> mx.array:
    """A number of every group to its channels, (B, 1, groups) -> (B, 1, C)."""
    return mx.repeat(rows, per, axis=-1)


def stored(*rows: mx.array) -> list[mx.array]:
    """Rows (B or 1, 1, C) in memory: mx.compile would compute them in the kernels that use them, for every pixel."""
    shape = mx.broadcast_shapes(*(row.shape for row in rows))
    return [*mx.stack([mx.broadcast_to(row, shape) for row in rows])]


def alone(x: mx.array) -> mx.array:
    """x (...) in a kernel of its own: GCC vectorises loops over pixels and rows, but not with exponentials in them."""
    return mx.contiguous(x)


def standardise(x: mx.array, groups: int, eps: float) -> mx.array:
    """Mean and 1 / std of every group, (B, groups, 2), of x (B, P, C)."""
    mean = means(sums(x), groups, x.shape[1])
    (level,) = stored(spread(mean, x.shape[-1] // groups))
    rstd = mx.rsqrt(means(sums(mx.square(x - level)), groups, x.shape[1]) + eps)
    return mx.stack([mean, rstd], axis=-1).squeeze(1)


def rows_of(a, d, statistics: mx.array, per: int) -> list[mx.array]:
    """R, Q, S, T (B, 1, C): xhat = R x + Q and A xhat + D = S x + T."""
    mean, rstd = (statistics[:, None, :, i] for i in range(2))
    r, q = stored(spread(rstd, per), spread(-mean * rstd, per))
    return stored(r, q, a[:, None] * r, a[:, None] * q + d[:, None])


def affine(weight, bias, modulation=None) -> list[mx.array]:
    """A and D (B or 1, C), and the factor 1 + scale of both."""
    if modulation is None:
        return [weight[None], bias[None], mx.ones_like(weight)[None]]
    scale, shift = mx.split(modulation, 2, axis=-1)
    return [weight * (1 + scale), bias * (1 + scale) + shift, 1 + scale]


def forward(x, *given, groups: int, eps: float, silu: bool) -> list[mx.array]:
    """y like x (B, H, W, C), and mean and 1 / std of every group, (B, groups, 2); given: weight, bias, modulation."""
    flat = x.flatten(1, 2)
    statistics, (a, d, _) = standardise(flat, groups, eps), affine(*given)
    *_, scale, shift = rows_of(a, d, statistics, x.shape[-1] // groups)
    z = flat * scale + shift
    return [(elementary.silu(alone(z)) if silu else z).reshape(x.shape), statistics]


def backward(x, *rest, groups: int, silu: bool) -> list[mx.array]:
    """Gradients by x, weight, bias and modulation of the sum of g y; rest: all but x, the statistics, g."""
    *given, statistics, g = rest
    a, d, factor = affine(*given)
    flat, g, per = x.flatten(1, 2), g.flatten(1, 2), x.shape[-1] // groups
    r, q, scale, shift = rows_of(a, d, statistics, per)
    if silu:
        g = g * silu_slope(alone(apart(flat) * scale + shift))  # apart: not the node that the value has
    by_a, by_d = sums(g * (flat * r + q)), sums(g)
    turn, level = (spread(means(a[:, None] * s, groups, flat.shape[1]), per) for s in (by_a, by_d))
    # r (a g - level - xhat turn)
    by_x, rest = stored(-r * r * turn, -r * (level + q * turn))
    dx = g * scale + apart(flat, swapped=True) * by_x + rest
    by_a, by_d = by_a.squeeze(1), by_d.squeeze(1)
    found = [dx.reshape(x.shape), (by_a * factor).sum(axis=0), (by_d * factor).sum(axis=0)]
    if len(given) == 3:
        found.append(mx.concatenate([by_a * given[0] + by_d * given[1], by_d], axis=-1))
    return found


def tangent(arrays, tangents, groups: int, eps: float, silu: bool) -> mx.array:
    """The jvp of y at arrays (x, weight, bias, modulation if any) along tangents, None where they don't move."""
    x, *given = arrays
    t, *along = filled(arrays, tangents)
    (a, d, _), (ta, td, _) = mx.jvp(affine, given, along)
    flat, t, per = x.flatten(1, 2), t.flatten(1, 2), x.shape[-1] // groups
    r, q, scale, shift = rows_of(a, d, standardise(flat, groups, eps), per)
    turn, level = (spread(means(s, groups, flat.shape[1]), per) for s in (sums(t * (flat * r + q)), sums(t)))
    # A r (t - level - xhat turn) + tA xhat + tD
    by_xhat = ta[:, None] - scale * turn
    by_x, rest = stored(by_xhat * r, by_xhat * q + td[:, None] - scale * level)
    tz = alone(t * scale + apart(flat, swapped=True) * by_x + rest)
    return (tz * silu_slope(alone(apart(flat) * scale + shift)) if silu else tz).reshape(x.shape)
