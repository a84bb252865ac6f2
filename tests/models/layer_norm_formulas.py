"""What models/layer_norm_cuda.py computes, in MLX's operations: the link between the kernels' formulas and autodiff."""

import mlx.core as mx

from tests.models.group_norm_formulas import widened


def standardised(x: mx.array, eps: float) -> tuple[mx.array, mx.array]:
    """xhat and 1 / std, (B, L, D) and (B, L, 1)."""
    x = widened(x)
    rstd = mx.rsqrt(x.var(axis=-1, keepdims=True) + eps)
    return (x - x.mean(axis=-1, keepdims=True)) * rstd, rstd


def projected(v: mx.array, xhat: mx.array, rstd: mx.array) -> mx.array:
    """The Jacobian of xhat times v."""
    level, along = (w.mean(axis=-1, keepdims=True) for w in (v, v * xhat))
    return rstd * (v - level - xhat * along)


def forward(x, a, s, eps: float) -> list[mx.array]:
    return [(standardised(x, eps)[0] * a[:, None] + s[:, None]).astype(x.dtype)]


def backward(x, a, s, g, eps: float) -> list[mx.array]:
    xhat, rstd = standardised(x, eps)
    g = widened(g)
    return [projected(g * a[:, None], xhat, rstd).astype(x.dtype), (g * xhat).sum(axis=1), g.sum(axis=1)]


def tangent(x, a, s, t, ta, ts, eps: float) -> list[mx.array]:
    xhat, rstd = standardised(x, eps)
    moved = projected(widened(t), xhat, rstd)
    return [(moved * a[:, None] + ta[:, None] * xhat + ts[:, None]).astype(x.dtype)]
