"""UNet for images: residual blocks modulated by the embedded times and class, self-attention at chosen resolutions.

After DDPM and its improved forms (arXiv 2006.11239, 2105.05233); times enter raw, as t and t - r (arXiv 2505.13447).
"""

from typing import Literal

import mlx.core as mx
import mlx.nn as nn

from models.attention import attention
from models.checkpointing import checkpointed
from models.convolution import Conv2d
from models.elementary import silu
from models.group_norm import GroupNorm
from models.layers import (
    Dropout,
    TimeEmbedding,
    check_halvings,
    check_sample,
    check_times,
    class_embedding,
    image_shape,
)
from models.linear import Linear
from runtime.errors import UsageError


def zero_linear(inputs: int, outputs: int) -> Linear:
    """A linear layer that starts at zero, so that the branch it ends starts as nothing."""
    layer = Linear(inputs, outputs)
    layer.weight = mx.zeros_like(layer.weight)
    layer.bias = mx.zeros_like(layer.bias)
    return layer


class Attention(nn.Module):
    """x + self-attention over all pixels; groups: of its GroupNorm, None for the default."""

    def __init__(self, channels: int, heads: int, groups: int | None = None):
        super().__init__()
        if channels % heads:
            raise UsageError(f"UNet: heads must divide the {channels} channels at an attention level, got {heads}.")
        self.heads = heads
        self.norm = GroupNorm(channels, groups)
        self.qkv = Linear(channels, 3 * channels)
        self.leave = zero_linear(channels, channels)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) -> (B, H, W, C)."""
        count, height, width, channels = x.shape
        qkv = self.qkv(self.norm(x)).reshape(count, height * width, 3, self.heads, channels // self.heads)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each (B, heads, H W, C / heads)
        h = attention(q, k, v, scale=(channels // self.heads) ** -0.5)
        return x + self.leave(h.transpose(0, 2, 1, 3).reshape(x.shape))


class Stage(nn.Module):
    """A residual block, scaled and shifted by the embedding (B, E), then attention where `heads` is not 0."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float, heads: int):
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(inputs), GroupNorm(outputs)
        self.conv1, self.conv2 = Conv2d(inputs, outputs), Conv2d(outputs, outputs, zero=True)
        self.modulate = Linear(embedding, 2 * outputs)
        self.dropout = Dropout(dropout)
        self.skip = Conv2d(inputs, outputs, kernel=1) if inputs != outputs else nn.Identity()
        self.attention = Attention(outputs, heads) if heads else nn.Identity()

    def __call__(self, x: mx.array, embedding: mx.array, key: mx.array | None) -> mx.array:
        """(B, H, W, inputs) -> (B, H, W, outputs)."""
        h = self.conv1(self.norm1(x, silu=True))
        h = self.norm2(h, silu=True, modulation=self.modulate(embedding))
        return self.attention(self.skip(x) + self.conv2(self.dropout(h, key)))


class UNet(nn.Module):
    """Encoder and decoder with concatenated skip connections; for 32 x 32 the defaults make 52.6M parameters.

    multipliers: channels of each resolution over `channels`; between two entries the image is halved.
    blocks: stages per resolution (one more in the decoder). attention: heights (pixels) at which stages attend;
    the middle always does. decoder_attention: in the decoder "every" stage of those heights attends, or only the "last"
    (51.0M). classes: 0, or the number of classes (one more is added for "no class"). checkpoint: each stage's insides
    are computed anew in the backward pass, not kept.
    """

    independent_rows = True

    def __init__(
        self,
        shape: tuple | list,
        channels: int = 128,
        multipliers: tuple | list = (1, 2, 2, 2),
        blocks: int = 3,
        attention: tuple | list = (16, 8),
        heads: int = 1,
        dropout: float = 0.0,
        classes: int = 0,
        decoder_attention: Literal["every", "last"] = "every",
        checkpoint: bool = False,
    ):
        super().__init__()
        self.checkpoint = checkpoint
        self.shape = image_shape(self, shape)
        height, _, colours = self.shape
        halvings = len(multipliers) - 1
        check_halvings(self, self.shape, halvings)
        embedding = 4 * channels
        self.time = TimeEmbedding(channels, embedding)
        self.label = class_embedding(classes, embedding)
        self.enter = Conv2d(colours, channels)

        def stage(inputs: int, outputs: int, size: int, attends: bool = True) -> Stage:
            return Stage(inputs, outputs, embedding, dropout, heads if attends and size in attention else 0)

        now, left = channels, [channels]  # left: channels of the maps that wait for the decoder
        self.down, self.halve = [], []
        for level, multiplier in enumerate(multipliers):
            level_stages = []
            for _ in range(blocks):
                level_stages.append(stage(now, multiplier * channels, height >> level))
                now = multiplier * channels
                left.append(now)
            self.down.append(level_stages)
            if level < halvings:
                self.halve.append(Conv2d(now, now, stride=2))
                left.append(now)
        self.middle = [Stage(now, now, embedding, dropout, heads), Stage(now, now, embedding, dropout, 0)]
        self.up, self.grow = [], []
        for level, multiplier in reversed(list(enumerate(multipliers))):
            level_stages = []
            for index in range(blocks + 1):
                attends = decoder_attention == "every" or index == blocks
                level_stages.append(stage(now + left.pop(), multiplier * channels, height >> level, attends))
                now = multiplier * channels
            self.up.append(level_stages)
            if level:
                self.grow.append(Conv2d(now, now))
        self.norm = GroupNorm(now)
        self.leave = Conv2d(now, colours, zero=True)
        self.stages = len(multipliers) * (2 * blocks + 1) + 2

    def __call__(self, x: mx.array, times=None, key=None, label=None) -> mx.array:
        """x (B, H, W, C), times (B, 2), label (B,) or None -> (B, H, W, C); key switches dropout on."""
        check_sample(self, x, self.shape)
        times = check_times(x, times)
        keys = iter([None] * self.stages if key is None else mx.random.split(key, self.stages))
        embedding = silu(self.label(self.time(times), label))

        def run(stage: Stage, h: mx.array) -> mx.array:
            key = next(keys)
            return checkpointed(stage, h, embedding, key) if self.checkpoint else stage(h, embedding, key)

        h = self.enter(x.astype(self.enter.weight.dtype))
        left = [h]
        for level, stages in enumerate(self.down):
            for stage in stages:
                h = run(stage, h)
                left.append(h)
            if level < len(self.halve):
                h = self.halve[level](h)
                left.append(h)
        for stage in self.middle:
            h = run(stage, h)
        for level, stages in enumerate(self.up):
            for stage in stages:
                h = run(stage, mx.concatenate([h, left.pop()], axis=-1))
            if level < len(self.grow):
                h = self.grow[level](h, doubled=True)
        return self.leave(self.norm(h, silu=True))
