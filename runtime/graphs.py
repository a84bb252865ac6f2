"""Which networks MLX runs without CUDA graphs: those with convolutions, whose graphs are made anew in every step.

MLX joins some hundred kernels to a graph, keeps it, and in the next step only tells it the new addresses. Where one of
them is cuDNN's for a convolution's gradient, CUDA can't: the graph is built and the old one destroyed each time. That
took the host half of the step of a UNet of 36.6M parameters, which waited for nothing else (EXPERIMENT_LOG.md,
2026-11-27). Without graphs every kernel is launched by itself; DiT-B, which has no convolution, is then 6% slower.
MLX reads MLX_USE_CUDA_GRAPHS when it first computes on a GPU, for the whole process; what the environment says stays.
"""

import ctypes
from collections.abc import Iterable

import mlx.core as mx
import mlx.nn as nn

VARIABLE = "MLX_USE_CUDA_GRAPHS"
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def choose(models: Iterable[nn.Module]) -> None:
    """Turns CUDA graphs off if one of the models has a convolution; too late once MLX has computed on the GPU."""
    if mx.cuda.is_available() and any(convolves(module) for model in models for module in model.modules()):
        _setenv(VARIABLE, "0")


def convolves(module: nn.Module) -> bool:
    """Whether a module is a convolution: one of MLX's, or one whose class says so by an attribute `convolves`."""
    return isinstance(module, CONVOLUTIONS) or getattr(type(module), "convolves", False)


def _setenv(name: str, value: str) -> None:
    ctypes.CDLL(None).setenv(name.encode(), value.encode(), 0)  # 0: what is set stays
