"""What models/group_norm_cuda.py computes, in MLX's operations: the link between the kernels' formulas and autodiff."""

import mlx.core as mx


def silu_slope(z: mx.array) -> mx.array:
    """The derivative of z sigmoid(z)."""
    s = mx.sigmoid(z)
    return s * (1 + z * (1 - s))


def widened(x: mx.array) -> mx.array:
    """x in float32, as the kernels compute; float64 stays, for tests."""
    return x if x.dtype == mx.float64 else x.astype(mx.float32)


def standardised(x: mx.array, groups: int, statistics: mx.array) -> mx.array:
    """xhat (B, H, W, C) float32 from the mean and 1 / std of its groups."""
    wide = widened(x).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    return ((wide - statistics[:, None, :, :1]) * statistics[:, None, :, 1:]).reshape(x.shape)


def centred(x: mx.array, xhat: mx.array, groups: int, statistics: mx.array) -> mx.array:
    """The Jacobian of xhat, which is symmetric, times x: (x - mean x - xhat mean(x xhat)) / std over each group."""
    x, y = (v.reshape(v.shape[0], -1, groups, v.shape[-1] // groups) for v in (x, xhat))
    level, along = (v.mean(axis=(1, 3), keepdims=True) for v in (x, x * y))
    return ((x - level - y * along) * statistics[:, None, :, 1:]).reshape(xhat.shape)


def forward(x, a, d, groups: int, eps: float, silu: bool) -> list[mx.array]:
    wide = widened(x).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean, spread = wide.mean(axis=(1, 3)), wide.var(axis=(1, 3))
    statistics = mx.stack([mean, mx.rsqrt(spread + eps)], axis=-1)
    z = a[:, None, None] * standardised(x, groups, statistics) + d[:, None, None]
    return [(z * mx.sigmoid(z) if silu else z).astype(x.dtype), statistics]


def backward(x, a, d, statistics, g, groups: int, silu: bool) -> list[mx.array]:
    xhat = standardised(x, groups, statistics)
    z = a[:, None, None] * xhat + d[:, None, None]
    gz = widened(g) * (silu_slope(z) if silu else 1)
    dx = centred(gz * a[:, None, None], xhat, groups, statistics)
    sums = ((gz * xhat).sum(axis=(1, 2)), gz.sum(axis=(1, 2)))
    return [dx.astype(x.dtype), *(v if v.shape == a.shape else v.sum(axis=0, keepdims=True) for v in sums)]


def tangent(x, a, d, t, ta, td, groups: int, eps: float, silu: bool) -> mx.array:
    statistics = forward(x, a, d, groups, eps, silu)[1]
    xhat = standardised(x, groups, statistics)
    z = a[:, None, None] * xhat + d[:, None, None]
    moved = centred(widened(t), xhat, groups, statistics)
    tz = a[:, None, None] * moved + ta[:, None, None] * xhat + td[:, None, None]
    return ((silu_slope(z) if silu else 1) * tz).astype(x.dtype)
