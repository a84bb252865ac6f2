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


def affine(weight, bias, modulation=None):
    """A and D (B or 1, 1, 1, C), and the factor of the weights."""
    w, b = widened(weight)[None, None, None], widened(bias)[None, None, None]
    if modulation is None:
        return w, b, mx.ones_like(w)
    channels = weight.size
    factor = 1 + widened(modulation)[:, None, None, :channels]
    return w * factor, b * factor + widened(modulation)[:, None, None, channels:], factor


def forward(x, *given, groups: int, eps: float, silu: bool) -> list[mx.array]:
    a, d, _ = affine(*given)
    wide = widened(x).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean, spread = wide.mean(axis=(1, 3)), wide.var(axis=(1, 3))
    statistics = mx.stack([mean, mx.rsqrt(spread + eps)], axis=-1)
    z = a * standardised(x, groups, statistics) + d
    return [(z * mx.sigmoid(z) if silu else z).astype(x.dtype), statistics]


def backward(x, *rest, groups: int, silu: bool) -> list[mx.array]:
    *given, statistics, g = rest
    a, d, factor = affine(*given)
    xhat = standardised(x, groups, statistics)
    z = a * xhat + d
    gz = widened(g) * (silu_slope(z) if silu else 1)
    dx = centred(gz * a, xhat, groups, statistics).astype(x.dtype)
    by_a, by_d = (gz * xhat).sum(axis=(1, 2)), gz.sum(axis=(1, 2))  # (B, C)
    found = [(v * factor[:, 0, 0]).sum(axis=0).astype(w.dtype) for v, w in zip((by_a, by_d), given, strict=False)]
    if len(given) == 3:
        by_scale = by_a * widened(given[0]) + by_d * widened(given[1])
        found.append(mx.concatenate([by_scale, by_d], axis=-1).astype(given[2].dtype))
    return [dx, *found]


def tangent(arrays, tangents, groups: int, eps: float, silu: bool) -> mx.array:
    x, *given = arrays
    t, *along = [mx.zeros_like(a) if v is None else v for a, v in zip(arrays, tangents, strict=True)]
    statistics = forward(x, *given, groups=groups, eps=eps, silu=silu)[1]
    xhat = standardised(x, groups, statistics)
    a, d, factor = affine(*given)
    ta, td = (widened(v) * factor for v in along[:2])
    if len(given) == 3:
        tm = widened(along[2])[:, None, None]
        ta, td = ta + widened(given[0]) * tm[..., : x.shape[-1]], td + widened(given[1]) * tm[..., : x.shape[-1]]
        td = td + tm[..., x.shape[-1] :]
    z = a * xhat + d
    tz = a * centred(widened(t), xhat, groups, statistics) + ta * xhat + td
    return ((silu_slope(z) if silu else 1) * tz).astype(x.dtype)
