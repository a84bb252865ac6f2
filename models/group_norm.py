"""Group normalisation with SiLU and modulation: on CUDA one kernel for values, gradient and jvp each, on a CPU a few.

The measured reason: MLX takes 0.17 ms for each sum over pixels and neighbouring channels on an H100, and a UNet's step
has hundreds of them.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import mlx.core as mx
import mlx.nn as nn

from models import derived, elementary, group_norm_cpu, group_norm_cuda
from models.elementary import widened
from runtime.cuda_launch import available
from runtime.errors import UsageError

KERNELS: ModuleType = group_norm_cuda


class GroupNorm(nn.Module):
    """Group normalisation of (B, H, W, C) over neighbouring channels, statistics in float32 (arXiv 1803.08494).

    groups: by default at most 32, of 8 channels or more: a group of one channel would wipe out whatever is constant
    over the image, such as times and labels. `GroupNorm.mode` (class attribute, read while tracing): "fused", "plain",
    or "auto", fused where the CUDA kernels fit (a multiple of 8 channels to a group, float32, bfloat16 or float16) and
    in float32 on a CPU (models/group_norm_cpu.py).
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

    def __call__(self, x: mx.array, silu: bool = False, modulation: mx.array | None = None) -> mx.array:
        """act(norm(x) (1 + scale) + shift), (B, H, W, C) -> its shape and dtype; modulation (B, 2C): scale, shift."""
        kernels = self.kernels(x)
        if kernels is not None:
            given = [] if modulation is None else [modulation]
            return fused(kernels, self.groups, self.eps, silu)(x, self.weight, self.bias, *given)[0]
        y = widened(x).reshape(x.shape[0], -1, self.groups, x.shape[-1] // self.groups)
        y = y - y.mean(axis=(1, 3), keepdims=True)
        y = y * mx.rsqrt(mx.square(y).mean(axis=(1, 3), keepdims=True) + self.eps)
        y = (y.reshape(x.shape) * self.weight + self.bias).astype(x.dtype)
        if modulation is not None:
            scale, shift = mx.split(modulation[:, None, None, :], 2, axis=-1)
            y = y * (1 + scale) + shift
        return elementary.silu(y) if silu else y

    def kernels(self, x: mx.array) -> ModuleType | None:
        """What computes x, None for MLX's own; raises UsageError for an unknown mode, and for "fused" without any."""
        if self.mode not in ("auto", "fused", "plain"):
            raise UsageError(f"GroupNorm.mode must be auto, fused or plain, got {self.mode!r}.")
        if self.mode == "plain":
            return None
        if fits(x, self.groups) or self.mode == "fused" and KERNELS is not group_norm_cuda:
            return KERNELS
        if x.dtype == mx.float32 and mx.default_device() == mx.Device(mx.cpu):
            return group_norm_cpu
        if self.mode == "fused":
            raise UsageError(
                "GroupNorm.mode=fused needs float32 on a CPU, or an NVIDIA GPU, float32, bfloat16 or float16, and a "
                f"multiple of 8 channels to a group; got {mx.default_device()}, {x.dtype} and {x.shape[-1]} channels "
                f"in {self.groups} groups."
            )
        return None


def fits(x: mx.array, groups: int) -> bool:
    """Whether the CUDA kernels can run here on x (B, H, W, C)."""
    return available(x) and group_norm_cuda.slab_of(x.shape[-1], groups) is not None


def affine(weight: mx.array, bias: mx.array, modulation: mx.array | None) -> tuple[mx.array, mx.array]:
    """What xhat is multiplied with and what is added, (B or 1, 1, 1, C) in float32, or float64."""
    a, d = (widened(p)[None, None, None] for p in (weight, bias))
    if modulation is None:
        return a, d
    scale, shift = mx.split(widened(modulation)[:, None, None], 2, axis=-1)
    return a * (1 + scale), d * (1 + scale) + shift


def expression(
    groups: int, eps: float, silu: bool, kernels: ModuleType = group_norm_cuda
) -> Callable[..., list[mx.array]]:
    """What `fused` computes, in MLX's operations, from which all derivatives beyond the kernels' own are taken.

    The statistics have the shape that the kernels give them.
    """

    def f(x, weight, bias, modulation=None):
        a, d = affine(weight, bias, modulation)
        y = widened(x).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
        mean = y.mean(axis=(1, 3), keepdims=True)
        y = y - mean
        rstd = mx.rsqrt(mx.square(y).mean(axis=(1, 3), keepdims=True) + eps)
        z = (y * rstd).reshape(x.shape) * a + d
        statistics = mx.concatenate([mean, rstd], axis=-1).squeeze(1)
        if kernels is group_norm_cpu:
            statistics = mx.repeat(statistics.swapaxes(1, 2), x.shape[-1] // groups, axis=-1)
        return [(z * mx.sigmoid(z) if silu else z).astype(x.dtype), statistics]

    return f


@lru_cache
def fused(kernels: ModuleType, groups: int, eps: float, silu: bool) -> Callable[..., list[mx.array]]:
    """f(x (B, H, W, C), weight, bias (C,), modulation (B, 2C) if any) -> [y, statistics without derivatives].

    kernels: forward, backward and tangent, as group_norm_cuda has them, are its values, vjp and jvp. Derivatives of
    these two, and everything under vmap, are those of MLX's operations: right, but not fast.
    """
    return derived.fused(
        expression(groups, eps, silu, kernels),
        lambda *arrays: kernels.forward(*arrays, groups=groups, eps=eps, silu=silu),
        lambda arrays, tangents: [kernels.tangent(arrays, tangents, groups, eps, silu)],
        lambda *arrays: kernels.backward(*arrays, groups=groups, silu=silu),
    )
