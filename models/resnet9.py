"""ResNet9 for CIFAR-10, after github.com/davidcpage/cifar10-fast, laid out as FastEstimator's."""

import mlx.core as mx
import mlx.nn as nn

from models.batch_norm import BatchNorm
from models.layers import check_sample, image_shape
from models.lenet import probabilities
from models.linear import Linear
from models.pooling import max_pool
from models.starts import with_bias
from runtime.errors import UsageError


def leaky(x: mx.array) -> mx.array:
    """x where it is positive, a tenth of it elsewhere, elementwise."""
    return mx.maximum(x, 0.1 * x)


class Unit(nn.Module):
    """A 3x3 convolution, with `pool` the largest of every 2 x 2, batch norm, leaky ReLU.

    momentum: the batch's share in the norm's running statistics.
    """

    def __init__(self, inputs: int, outputs: int, momentum: float = 0.1, pool: bool = False):
        super().__init__()
        self.pool = pool
        self.conv = with_bias(inputs, outputs)
        self.norm = BatchNorm(outputs, momentum=momentum)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, inputs) -> (B, H, W, outputs), pooled (B, H / 2, W / 2, outputs)."""
        h = self.conv(x)
        return leaky(self.norm(max_pool(h) if self.pool else h))


class Level(nn.Module):
    """A pooled unit, then x + two units of the same width."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.enter = Unit(inputs, outputs, momentum=0.2, pool=True)
        self.first, self.second = Unit(outputs, outputs), Unit(outputs, outputs)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, inputs) -> (B, H / 2, W / 2, outputs)."""
        x = self.enter(x)
        return x + self.second(self.first(x))


class ResNet9(nn.Module):
    """Images to class probabilities; 32 x 32 x 3 and 10 classes make 7,756,554 parameters.

    shape: [height, width, channels], at least 16 x 16. channels: after the first convolution; each of three levels
    doubles them and halves the image. logits: give what the softmax takes instead. Layers start as PyTorch's.
    Raises UsageError for smaller images.
    """

    independent_rows = True

    def __init__(self, shape: tuple | list = (32, 32, 3), classes: int = 10, channels: int = 64, logits: bool = False):
        super().__init__()
        self.shape, self.logits = image_shape(self, shape), logits
        if min(self.shape[:2]) < 16:
            raise UsageError(f"ResNet9: height and width must be at least 16, got {self.shape[0]} x {self.shape[1]}.")
        self.enter = Unit(self.shape[2], channels, momentum=0.2)
        self.levels = [Level(channels << i, channels << i + 1) for i in range(3)]
        self.head = Linear(8 * channels, classes)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) -> (B, classes)."""
        check_sample(self, x, self.shape)
        h = self.enter(x.astype(self.head.weight.dtype))
        for level in self.levels:
            h = level(h)
        h = self.head(h.max(axis=(1, 2)))
        return h if self.logits else probabilities(h)
