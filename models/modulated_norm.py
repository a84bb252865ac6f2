"""Layer norm with modulation, as in adaLN (arXiv 2212.09748): MLX's operations, or CUDA kernels of one pass each."""

from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import mlx.core as mx

from models import derived, layer_norm_cuda
from models.elementary import layer_norm, widened
from runtime.cuda_launch import available
from runtime.errors import UsageError

EPS = 1e-6
KERNELS: ModuleType = layer_norm_cuda
# Read while tracing. "plain", "fused" (the CUDA kernels) or "auto": fused where the kernels fit. On an H100 a step of
# DiT-B took 36.0 ms instead of 40.0 with flow matching, 58.2 instead of 68.5 with MeanFlow.
MODE = "auto"


def modulated(x: mx.array, shift: mx.array, scale: mx.array) -> mx.array:
    """Layer norm of x (B, L, D), statistics in float32, scaled by 1 + scale and shifted, both (B, 1, D).

    Raises UsageError for an unknown MODE, and for "fused" where the kernels don't fit.
    """
    if MODE not in ("auto", "plain", "fused"):
        raise UsageError(f"modulated_norm.MODE must be auto, plain or fused, got {MODE!r}.")
    if MODE == "plain" or MODE == "auto" and not fits(x):
        return layer_norm(x) * (1 + scale) + shift
    if KERNELS is layer_norm_cuda and not fits(x):
        raise UsageError(
            "modulated_norm.MODE=fused needs an NVIDIA GPU, float32, bfloat16 or float16, and a multiple of 8 features "
            f"up to {layer_norm_cuda.WIDEST}; got {mx.default_device()}, {x.dtype} and {x.shape[-1]} features."
        )
    a, s = (1 + scale.astype(mx.float32)).squeeze(1), shift.astype(mx.float32).squeeze(1)
    return fused(KERNELS, EPS)(x, a, s)[0]


def fits(x: mx.array) -> bool:
    """Whether the CUDA kernels can run here on x (B, L, C)."""
    return available(x) and layer_norm_cuda.takes(x.shape[-1])


def expression(eps: float) -> Callable[..., list[mx.array]]:
    """What `fused` computes, in MLX's operations."""

    def f(x, a, s):
        y = widened(x)
        y = y - y.mean(axis=-1, keepdims=True)
        y = y * mx.rsqrt(mx.square(y).mean(axis=-1, keepdims=True) + eps)
        return [(y * a[:, None] + s[:, None]).astype(x.dtype)]

    return f


@lru_cache
def fused(kernels: ModuleType, eps: float) -> Callable[..., list[mx.array]]:
    """f(x (B, L, D), a, s (B, D)) -> [a xhat + s].

    kernels: forward, backward and tangent, as layer_norm_cuda has them, are its values, vjp and jvp. Derivatives of
    these two, and everything under vmap, are those of MLX's operations.
    """
    return derived.fused(
        expression(eps),
        lambda *arrays: kernels.forward(*arrays, eps),
        lambda arrays, tangents: kernels.tangent(*arrays, *derived.filled(arrays, tangents), eps),
        lambda *arrays: kernels.backward(*arrays, eps),
    )
