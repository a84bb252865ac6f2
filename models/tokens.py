"""What the image transformers share: patches as tokens, sinusoids of a number, linear layers with a chosen start."""

import math

import mlx.core as mx
import mlx.nn as nn

from models.elementary import silu
from models.layers import image_shape
from models.linear import Linear
from runtime.errors import UsageError


def patched_shape(model: nn.Module, shape: tuple | list, patch: int) -> tuple[int, int, int]:
    """The sample shape (H, W, C); raises UsageError unless it is an image which `patch` (pixels) divides."""
    height, width, channels = image_shape(model, shape)
    if patch < 1 or height % patch or width % patch:
        raise UsageError(f"{type(model).__name__} cuts images into patches: patch must divide height and width, "
                         f"{height} x {width}; got patch={patch}.")  # fmt: skip
    return height, width, channels


def check_heads(model: nn.Module, hidden: int, heads: int, multiple: int) -> None:
    """Raises UsageError unless `heads` divides `hidden`, and `multiple` the features (hidden / heads) of each head."""
    if heads < 1 or hidden % heads or hidden // heads % multiple:
        even = f", with a multiple of {multiple} features for each" if multiple > 1 else ""
        raise UsageError(f"{type(model).__name__}: heads must divide hidden={hidden}{even}; got heads={heads}.")


def patchify(x: mx.array, patch: int) -> mx.array:
    """(B, H, W, C) -> (B, H W / patch^2, patch^2 C): patches row by row; in a patch rows, columns, channels."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(count, -1, patch * patch * channels)


def unpatchify(tokens: mx.array, patch: int, shape: tuple[int, int, int]) -> mx.array:
    """The inverse of `patchify` for images of `shape` (H, W, C)."""
    count, (height, width, channels) = tokens.shape[0], shape
    x = tokens.reshape(count, height // patch, width // patch, patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(count, *shape)


def normal_linear(inputs: int, outputs: int, std: float, bias: bool = True) -> Linear:
    """A linear layer with weights from N(0, std^2) and a bias of zero; std=0 starts it at zero."""
    layer = Linear(inputs, outputs, bias=bias)
    layer.weight = mx.random.normal((outputs, inputs)) * std if std else mx.zeros((outputs, inputs))
    if bias:
        layer.bias = mx.zeros(outputs)
    return layer


def xavier_linear(inputs: int, outputs: int) -> Linear:
    """A linear layer with Xavier-uniform weights and a bias of zero."""
    layer = normal_linear(inputs, outputs, 0)
    bound = math.sqrt(6 / (inputs + outputs))
    layer.weight = mx.random.uniform(-bound, bound, (outputs, inputs))
    return layer


def sinusoids(value: mx.array, features: int = 256, max_period: float = 10_000.0) -> mx.array:
    """(B,) -> (B, features): cosines, then sines of value times 1 ... 1 / max_period, in value's dtype."""
    half = features // 2
    waves = mx.exp(mx.arange(half).astype(value.dtype) * (-math.log(max_period) / half))
    angles = value[:, None] * waves
    return mx.concatenate([mx.cos(angles), mx.sin(angles)], axis=-1)


class NumberEmbedding(nn.Module):
    """A vector for a number per row, (B,) -> (B, width): 256 sines and cosines, then two linear layers.

    std: of the initial weights of both layers. The number keeps its dtype until its sinusoids are known: bf16 tells
    only 256 times apart.
    """

    FEATURES = 256

    def __init__(self, width: int, std: tuple[float, float]):
        super().__init__()
        self.first = normal_linear(self.FEATURES, width, std[0])
        self.second = normal_linear(width, width, std[1])

    def __call__(self, value: mx.array) -> mx.array:
        """value (B,) -> (B, width) in the weights' dtype."""
        return self.second(silu(self.first(sinusoids(value, self.FEATURES).astype(self.first.weight.dtype))))
