"""Multi-layer perceptrons over the unified input (sample, start, end)."""

import math

import mlx.core as mx
import mlx.nn as nn

from models.elementary import erf_gelu
from models.layers import Activation, activation_named, check_sample, check_times, class_embedding, join_times
from runtime.errors import UsageError


class MLP(nn.Module):
    """`depth` hidden layers of `hidden` units over the flattened sample joined with its two times."""

    independent_rows = True

    def __init__(
        self,
        shape: tuple | list,
        hidden: int = 256,
        depth: int = 3,
        activation: Activation = "silu",
        classes: int = 0,
    ):
        super().__init__()
        if depth < 1:
            raise UsageError(f"MLP: depth must be at least 1, got {depth}.")
        self.shape = tuple(shape)
        size = math.prod(self.shape)
        self.activation: Activation = activation
        self.enter = nn.Linear(size + 2, hidden)
        self.label = class_embedding(classes, hidden)
        self.layers = [nn.Linear(hidden, hidden) for _ in range(depth - 1)]
        self.leave = nn.Linear(hidden, size)

    def __call__(self, x: mx.array, times=None, key=None, label=None) -> mx.array:
        """x (B, *shape), times (B, 2), label (B,) or None -> (B, *shape)."""
        check_sample(self, x, self.shape)
        act = activation_named(self.activation)
        flat = x.reshape(x.shape[0], -1).astype(self.enter.weight.dtype)
        h = act(self.label(self.enter(join_times(flat, times)), label))
        for layer in self.layers:
            h = act(layer(h))
        return self.leave(h).reshape(x.shape)


class ResidualBlock(nn.Module):
    """h + W2 gelu(W1 h), with `expansion` times the width inside."""

    def __init__(self, width: int, expansion: int):
        super().__init__()
        self.wide = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)

    def __call__(self, h: mx.array) -> mx.array:
        """(B, width) -> (B, width)."""
        return h + self.narrow(erf_gelu(self.wide(h)))


class ResidualMLP(nn.Module):
    """Residual blocks with GELU, 0.40M parameters on points: the 8-gaussians -> moons network of arXiv 2503.10636."""

    independent_rows = True

    def __init__(self, shape: tuple | list, width: int = 128, blocks: int = 3, expansion: int = 4, classes: int = 0):
        super().__init__()
        self.shape = tuple(shape)
        size = math.prod(self.shape)
        self.enter = nn.Linear(size, width)
        # layers of their own: a time weighs 1/sqrt(1) at the start, not 1/sqrt(size + 2)
        self.start, self.length = nn.Linear(1, width), nn.Linear(1, width)
        self.label = class_embedding(classes, width)
        self.blocks = [ResidualBlock(width, expansion) for _ in range(blocks)]
        self.leave = nn.Linear(width, size)

    def __call__(self, x: mx.array, times=None, key=None, label=None) -> mx.array:
        """x (B, *shape), times (B, 2), label (B,) or None -> (B, *shape)."""
        check_sample(self, x, self.shape)
        flat = x.reshape(x.shape[0], -1).astype(self.enter.weight.dtype)
        times = check_times(x, times).astype(flat.dtype)
        h = self.enter(flat) + self.start(times[:, :1]) + self.length(times[:, 1:] - times[:, :1])
        h = self.label(h, label)
        for block in self.blocks:
            h = block(h)
        return self.leave(h).reshape(x.shape)
