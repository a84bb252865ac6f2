"""Wide residual networks (Zagoruyko and Komodakis, arXiv 1605.07146), laid out as FastEstimator's."""

import mlx.core as mx
import mlx.nn as nn

from models.batch_norm import BatchNorm
from models.layers import Dropout
from models.linear import Linear
from models.starts import he_normal
from runtime.errors import UsageError


class Block(nn.Module):
    """x + two 3x3 convolutions, each after batch norm and ReLU; where sizes differ x goes through a 1x1 convolution.

    That convolution, as the first 3x3, takes x after its norm and ReLU.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float):
        super().__init__()
        self.norm1, self.norm2 = BatchNorm(inputs), BatchNorm(outputs)
        self.conv1 = he_normal(inputs, outputs, fan_out=True, stride=stride, bias=False)
        self.conv2 = he_normal(outputs, outputs, fan_out=True, bias=False)
        self.dropout = Dropout(dropout)
        if inputs != outputs:
            self.skip = he_normal(inputs, outputs, kernel=1, fan_out=True, stride=stride, bias=False)

    def __call__(self, x: mx.array, key: mx.array | None) -> mx.array:
        """(B, H, W, inputs) -> (B, H / stride, W / stride, outputs)."""
        h = nn.relu(self.norm1(x))
        way = self.skip(h) if "skip" in self else x
        h = self.dropout(nn.relu(self.norm2(self.conv1(h))), key)
        return way + self.conv2(h)


class WideResidualNetwork(nn.Module):
    """Images of any size to logits; the defaults are WRN-28-10 with 36,479,194 parameters (10 classes).

    depth: layers, 6 n + 4 for n blocks at each of three resolutions. widen_factor: channels over 16, 32 and 64.
    channels: of the images. Convolutions start from N(0, 2 / fan out). Raises UsageError for another depth.
    """

    independent_rows = True

    def __init__(
        self, depth: int = 28, classes: int = 10, widen_factor: int = 10, dropout: float = 0.0, channels: int = 3
    ):
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise UsageError(f"WideResidualNetwork: depth must be 6 n + 4 (10, 16, 22, 28, ...), got {depth}.")
        blocks = (depth - 4) // 6
        self.enter = he_normal(channels, 16, fan_out=True, bias=False)
        self.blocks, now = [], 16
        for level in range(3):
            wide = 16 * widen_factor << level
            for index in range(blocks):
                self.blocks.append(Block(now, wide, 2 if level and not index else 1, dropout))
                now = wide
        self.norm = BatchNorm(now)
        self.head = Linear(now, classes)
        self.head.bias = mx.zeros(classes)

    def __call__(self, x: mx.array, key: mx.array | None = None) -> mx.array:
        """(B, H, W, channels) -> logits (B, classes); key switches dropout on."""
        keys = [None] * len(self.blocks) if key is None else mx.random.split(key, len(self.blocks))
        h = self.enter(x.astype(self.enter.weight.dtype))
        for block, own in zip(self.blocks, keys, strict=True):
            h = block(h, own)
        return self.head(nn.relu(self.norm(h)).mean(axis=(1, 2)))
