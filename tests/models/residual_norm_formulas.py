"""What models/residual_norm_cuda.py computes, in MLX's operations: the kernels' formulas, to compare with autodiff."""

import mlx.core as mx

from tests.models.group_norm_formulas import widened


def forward(x, r, axis: int, eps: float) -> list[mx.array]:
    s = widened(x) + widened(r)
    f = 1 / mx.sqrt((s * s).mean(axis=axis, keepdims=True) + eps)
    return [(s * f).astype(x.dtype), f]


def backward(dy, df, y, f, axis: int) -> mx.array:
    dy, wide = widened(dy), widened(y)
    along = (wide * dy).mean(axis=axis, keepdims=True) + f * df / y.shape[axis]
    return (f * (dy - wide * along)).astype(y.dtype)
