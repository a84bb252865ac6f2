"""RMS norm without weights of the sum of a state and a branch: MLX's operations, or a CUDA kernel of one pass."""

from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import cast

import mlx.core as mx

from models import residual_norm_cuda
from models.derived import derived, filled
from models.elementary import apart, widened
from runtime.cuda_launch import available
from runtime.custom import custom_function
from runtime.errors import UsageError

KERNELS: ModuleType = residual_norm_cuda
MODE = "auto"  # read while tracing: "plain", "fused" (the CUDA kernels) or "auto", fused where they fit


def residual_norm(x: mx.array, branch: mx.array, axis: int, eps: float) -> mx.array:
    """x + branch, (B, T, D), over its root mean square along axis 1 or 2, in float32 inside.

    Raises UsageError for an unknown MODE, and for "fused" where the kernels don't fit.
    """
    if MODE not in ("auto", "plain", "fused"):
        raise UsageError(f"residual_norm.MODE must be auto, plain or fused, got {MODE!r}.")
    if MODE == "plain" or MODE == "auto" and not fits(x, axis):
        return by_tokens(eps)(x, branch)[0] if axis == 1 else mx.fast.rms_norm(x + branch, None, eps)
    if KERNELS is residual_norm_cuda and not fits(x, axis):
        raise UsageError(
            "residual_norm.MODE=fused needs an NVIDIA GPU, float32, bfloat16 or float16, a multiple of 8 features, and "
            f"along axis 1 at most {residual_norm_cuda.LONGEST} tokens; "
            f"got {mx.default_device()}, {x.dtype} and {x.shape}."
        )
    return fused(KERNELS, axis, eps)(x, branch)[0]


def fits(x: mx.array, axis: int) -> bool:
    """Whether the CUDA kernels can run here on x (B, T, D)."""
    return available(x) and residual_norm_cuda.takes(x.shape[1], x.shape[2], axis)


def expression(axis: int, eps: float) -> Callable[..., list[mx.array]]:
    """What `fused` computes, in MLX's operations: y and the factor."""

    def f(x, branch):
        wide = widened(x)
        wide = wide + branch.astype(wide.dtype)
        factor = mx.rsqrt(wide.square().mean(axis=axis, keepdims=True) + eps)
        return [(wide * factor).astype(x.dtype), factor]

    return f


def slope(dy: mx.array, df: mx.array, y: mx.array, f: mx.array, axis: int) -> mx.array:
    """The gradient by x, or branch, (B, T, D) from those by y and the factor f, in MLX's operations."""
    count = y.shape[axis]
    along = apart(y).astype(f.dtype) * apart(dy).astype(f.dtype)
    along = (along.sum(axis=axis, keepdims=True) + f * df) / count
    return (f * (dy.astype(f.dtype) - y.astype(f.dtype) * along)).astype(y.dtype)


@lru_cache
def fused(kernels: ModuleType, axis: int, eps: float) -> Callable[..., list[mx.array]]:
    """f(x, branch (B, T, D)) -> [y, the factor, with 1 for the length of `axis`].

    kernels: forward and backward, as residual_norm_cuda has them. The gradient takes y and the factor, so that x and
    branch needn't be kept. Derivatives of the gradient, and everything under jvp and vmap, are those of MLX's
    operations: right, but not fast.
    """
    plain = expression(axis, eps)
    gradient = derived(
        lambda *arrays: [kernels.backward(*arrays, axis)], lambda dy, df, y, f: [slope(dy, df, y, f, axis)]
    )

    @custom_function
    def f(x, branch):
        return kernels.forward(mx.stop_gradient(x), mx.stop_gradient(branch), axis, eps)

    @f.vjp
    def _(_primals, cotangents, outputs):
        ds = gradient(*cotangents, *outputs)[0]
        return ds, ds

    @f.jvp
    def _(primals, tangents):
        return mx.jvp(plain, primals, filled(primals, tangents))[1]

    @f.vmap
    def _(inputs, axes):
        return mx.vmap(plain, in_axes=tuple(axes))(*inputs), [0, 0]

    return cast(Callable[..., list[mx.array]], f)


@lru_cache
def by_tokens(eps: float) -> Callable[..., list[mx.array]]:
    """`fused` along axis 1 by operations that mx.compile makes two passes over memory of, either way; without jvp.

    mx.compile merges equal operations, and one that two kernels share gets a kernel of its own; `apart` keeps apart
    what is cheaper done twice.
    """

    def plain(x, branch):
        wide = apart(x).astype(mx.float32) + apart(branch).astype(mx.float32)
        # the sums not as a product with ones, which an H200 took longer for
        factor = mx.rsqrt(wide.square().sum(axis=1, keepdims=True) / x.shape[1] + eps)
        return [((x + branch).astype(mx.float32) * factor).astype(x.dtype), factor]

    @custom_function
    def call(x, branch):
        return plain(mx.stop_gradient(x), mx.stop_gradient(branch))

    @call.vjp
    def _(_primals, cotangents, outputs):
        ds = slope(*cotangents, *outputs, axis=1)
        return ds, ds

    @call.vmap
    def _(inputs, axes):
        return mx.vmap(plain, in_axes=axes)(*inputs), [0, 0]

    return cast(Callable[..., list[mx.array]], call)
