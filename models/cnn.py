"""A small residual convolutional network at one resolution, over the unified input."""

import mlx.core as mx
import mlx.nn as nn

from models.convolution import Conv2d
from models.group_norm import GroupNorm
from models.layers import Dropout, check_sample, class_embedding, image_shape, join_times


class ConvBlock(nn.Module):
    """x + two 3x3 convolutions, each after GroupNorm and SiLU; the class vector is added between them."""

    def __init__(self, channels: int, dropout: float, classes: int):
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(channels), GroupNorm(channels)
        self.conv1, self.conv2 = Conv2d(channels, channels), Conv2d(channels, channels, zero=True)
        self.label = class_embedding(classes, channels)
        self.dropout = Dropout(dropout)

    def __call__(self, x: mx.array, label: mx.array | None, key: mx.array | None) -> mx.array:
        """(B, H, W, C) -> (B, H, W, C)."""
        h = self.label(self.conv1(self.norm1(x, silu=True)), label)
        return x + self.conv2(self.dropout(self.norm2(h, silu=True), key))


class SmallCNN(nn.Module):
    """`blocks` residual blocks on the sample joined with its times as two channels: 0.5M parameters by default.

    Every pixel sees (4 * blocks + 5) pixels across: enough for 28 x 28 images.
    """

    independent_rows = True

    def __init__(
        self, shape: tuple | list, channels: int = 64, blocks: int = 7, dropout: float = 0.0, classes: int = 0
    ):
        super().__init__()
        self.shape = image_shape(self, shape)
        self.enter = Conv2d(self.shape[-1] + 2, channels)
        self.blocks = [ConvBlock(channels, dropout, classes) for _ in range(blocks)]
        self.norm = GroupNorm(channels)
        self.leave = Conv2d(channels, self.shape[-1], zero=True)

    def __call__(self, x: mx.array, times=None, key=None, label=None) -> mx.array:
        """x (B, H, W, C), times (B, 2), label (B,) or None -> (B, H, W, C); key switches dropout on."""
        check_sample(self, x, self.shape)
        keys = [None] * len(self.blocks) if key is None else mx.random.split(key, len(self.blocks))
        h = self.enter(join_times(x.astype(self.enter.weight.dtype), times))
        for block, own in zip(self.blocks, keys, strict=True):
            h = block(h, label, own)
        return self.leave(self.norm(h, silu=True))
