"""Whether a SwiGLU computes gate and up by one product, and then its gate by a CUDA kernel.

Without the kernel two products are faster: the halves of one, and then their gradients, would be copied.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import cast

import mlx.core as mx

from models import gate_cuda
from models.derived import derived
from models.elementary import plain_gated
from runtime.cuda_launch import available
from runtime.custom import custom_function
from runtime.errors import UsageError

KERNELS: ModuleType = gate_cuda
MODE = "auto"  # read while tracing: "plain", "fused" (one product and the CUDA kernel) or "auto", fused where it fits


def is_fused(x: mx.array, inner: int) -> bool:
    """Whether a SwiGLU of `inner` features takes the kernel for x (..., D), as MODE says.

    Raises UsageError for an unknown MODE, and for "fused" where the kernel doesn't fit.
    """
    if MODE not in ("auto", "plain", "fused"):
        raise UsageError(f"gate.MODE must be auto, plain or fused, got {MODE!r}.")
    fits = available(x) and gate_cuda.takes(x.size // x.shape[-1], inner)
    if MODE == "fused" and not fits and KERNELS is gate_cuda:
        raise UsageError(
            "gate.MODE=fused needs an NVIDIA GPU, float32, bfloat16 or float16, and a multiple of 8 inner features; "
            f"got {mx.default_device()}, {x.dtype} and {inner}."
        )
    return MODE == "fused" or MODE == "auto" and fits


def joined(x: mx.array, axis: int) -> mx.array:
    """silu(g) u by the kernel, (..., M, ...), of g and u one after the other along `axis`, (..., 2 M, ...)."""
    before, both, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    y = fused(KERNELS)(x.reshape(math.prod(before), 2, both // 2 * math.prod(after)))[0]
    return y.reshape(*before, both // 2, *after)


@lru_cache
def fused(kernels: ModuleType) -> Callable[[mx.array], list[mx.array]]:
    """f(x (N, 2, M)) -> [silu(x[:, 0]) x[:, 1]].

    kernels: forward and backward, as gate_cuda has them. Derivatives of the gradient, and everything under jvp and
    vmap, are those of MLX's operations: right, but not fast.
    """

    def plain(x):
        return [plain_gated(x[:, 0], x[:, 1])]

    gradient = derived(lambda x, dy: [kernels.backward(x, dy)], lambda x, dy: mx.vjp(plain, [x], [dy])[1])

    @custom_function
    def f(x):
        return [kernels.forward(mx.stop_gradient(x))]

    @f.vjp
    def _(x, cotangents, _outputs):
        return gradient(x, cotangents[0])

    @f.jvp
    def _(x, tangent):
        return mx.jvp(plain, [x], [tangent])[1]

    @f.vmap
    def _(x, axis):
        return mx.vmap(plain, in_axes=axis)(x), [0]

    return cast(Callable[[mx.array], list[mx.array]], f)
