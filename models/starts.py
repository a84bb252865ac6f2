"""Starting weights of convolutions and linear layers where a model needs others than its layers' own."""

import math

import mlx.core as mx

from models.convolution import Conv2d, Convolution
from models.linear import Linear


def with_bias(inputs: int, outputs: int, kernel: int = 3, **options) -> Conv2d:
    """A convolution that starts as PyTorch's: weight and bias uniform within 1 / root of a window's inputs."""
    layer = Conv2d(inputs, outputs, kernel, **options)
    bound = 1 / math.sqrt(layer.weight[0].size)
    layer.bias = mx.random.uniform(-bound, bound, layer.bias.shape)
    return layer


def he_normal(inputs: int, outputs: int, kernel: int = 3, fan_out: bool = False, **options) -> Conv2d:
    """A convolution with weights from N(0, 2 / fan) (arXiv 1502.01852), fan the inputs of a window or its outputs."""
    layer = Conv2d(inputs, outputs, kernel, **options)
    fan = outputs * kernel**2 if fan_out else inputs * kernel**2
    layer.weight = mx.random.normal(layer.weight.shape) * math.sqrt(2 / fan)
    return layer


def normal(layer: Convolution | Linear, std: float, bias: tuple[float, float] | None = None):
    """Gives the layer back with weights from N(0, std^2) and, if `bias` is (mean, std), biases from that normal."""
    layer.weight = mx.random.normal(layer.weight.shape) * std
    if bias is not None:
        layer.bias = bias[0] + bias[1] * mx.random.normal(layer.bias.shape)
    return layer
