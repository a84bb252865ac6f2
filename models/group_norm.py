"""Group normalisation with SiLU and modulation: on CUDA one kernel for values, gradient and jvp each, else MLX's own.

The measured reason: MLX takes 0.17 ms for each sum over pixels and neighbouring channels on an H100, and a UNet's step
has hundreds of them.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import cast

import mlx.core as mx
import mlx.nn as nn

from models import group_norm_cuda
from runtime.errors import UsageError

KERNELS: ModuleType = group_norm_cuda


class GroupNorm(nn.Module):
    """Group normalisation of (B, H, W, C) over neighbouring channels, statistics in float32 (arXiv 1803.08494).

    groups: by default at most 32, of 8 channels or more: a group of one channel would wipe out whatever is constant
    over the image, such as times and labels. `GroupNorm.mode` (class attribute, read while tracing): "fused", "plain",
    or "auto", fused where the CUDA kernels fit: a multiple of 8 channels to a group, float32, bfloat16 or float16.
    """

    mode: str = "auto"

    def __init__(self, channels: int, groups: int | None = None, eps: float = 1e-6):
        super().__init__()
        self.groups = groups or math.gcd(32, max(1, channels // 8), channels)
        if channels % self.groups:
            raise UsageError(f"GroupNorm: groups must divide the {channels} channels, got {self.groups}.")
        self.eps = eps
        self.weight = mx.ones(channels)
        self.bias = mx.zeros(channels)

    def __call__(self, x: mx.array, silu: bool = False, scale=None, shift=None) -> mx.array:
        """act(norm(x) (1 + scale) + shift), (B, H, W, C) -> its shape and dtype; scale and shift (B, C) or None."""
        if self.mode == "fused" or self.mode == "auto" and fits(x, self.groups):
            a, d = (p.astype(mx.float32)[None] for p in (self.weight, self.bias))
            if scale is not None:
                a, d = a * (1 + scale.astype(mx.float32)), d * (1 + scale.astype(mx.float32))
            if shift is not None:
                d = d + shift.astype(mx.float32)
                a = mx.broadcast_to(a, d.shape)
            return fused(KERNELS, self.groups, self.eps, silu)(x, a, d)[0]
        wide = x if x.dtype == mx.float64 else x.astype(mx.float32)
        y = wide.reshape(x.shape[0], -1, self.groups, x.shape[-1] // self.groups)
        y = y - y.mean(axis=(1, 3), keepdims=True)
        y = y * mx.rsqrt(mx.square(y).mean(axis=(1, 3), keepdims=True) + self.eps)
        y = (y.reshape(x.shape) * self.weight + self.bias).astype(x.dtype)
        if scale is not None:
            y = y * (1 + scale[:, None, None, :])
        if shift is not None:
            y = y + shift[:, None, None, :]
        return nn.silu(y) if silu else y


def fits(x: mx.array, groups: int) -> bool:
    """Whether the CUDA kernels can run here on x."""
    return (
        mx.default_device() == mx.Device(mx.gpu)
        and mx.cuda.is_available()
        and x.dtype in (mx.float32, mx.bfloat16, mx.float16)
        and group_norm_cuda.slab_of(x.shape[-1], groups) is not None
    )


@lru_cache
def fused(kernels: ModuleType, groups: int, eps: float, silu: bool) -> Callable[..., list[mx.array]]:
    """f(x (B, H, W, C), a, d (B or 1, C)) -> [act(a xhat + d), statistics], with derivatives of its own.

    kernels: forward, backward and tangent, as group_norm_cuda has them. The jvp can't be differentiated again on CUDA
    (MLX says so); under vmap there is no rule, and MLX's error says that too.
    """

    @mx.custom_function
    def f(x, a, d):
        # without stop_gradient MLX would differentiate this body instead
        x, a, d = (mx.stop_gradient(v) for v in (x, a, d))
        return kernels.forward(x, a, d, groups, eps, silu)

    @f.jvp
    def _(primals, tangents):
        t, ta, td = (mx.zeros_like(p) if v is None else v for p, v in zip(primals, tangents, strict=True))
        statistics = mx.zeros((primals[0].shape[0], groups, 2))
        return [kernels.tangent(*primals, t, ta, td, groups, eps, silu), statistics]

    @f.vjp
    def _(primals, cotangents, outputs):
        return kernels.backward(*primals, outputs[1], cotangents[0], groups, silu)

    return cast(Callable[..., list[mx.array]], f)
