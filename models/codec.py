"""The halves of a convolutional autoencoder, images to maps of numbers and back, as Stable Diffusion's has them.

After latent diffusion (arXiv 2112.10752, appendix E); the layout is that of diffusers' AutoencoderKL.
"""

import mlx.core as mx
import mlx.nn as nn

from models.convolution import Conv2d
from models.group_norm import GroupNorm
from models.unet import Attention


class Block(nn.Module):
    """x + two 3x3 convolutions, each after GroupNorm and SiLU; a 1x1 convolution on the way of x where sizes differ."""

    def __init__(self, inputs: int, outputs: int, groups: int | None):
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(inputs, groups), GroupNorm(outputs, groups)
        self.conv1, self.conv2 = Conv2d(inputs, outputs), Conv2d(outputs, outputs, zero=True)
        self.skip = Conv2d(inputs, outputs, kernel=1) if inputs != outputs else nn.Identity()

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, inputs) -> (B, H, W, outputs)."""
        h = self.conv1(self.norm1(x, silu=True))
        return self.skip(x) + self.conv2(self.norm2(h, silu=True))


class Middle(nn.Module):
    """Block, self-attention, block."""

    def __init__(self, channels: int, groups: int | None):
        super().__init__()
        self.first, self.second = Block(channels, channels, groups), Block(channels, channels, groups)
        self.attention = Attention(channels, heads=1, groups=groups)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) -> (B, H, W, C)."""
        return self.second(self.attention(self.first(x)))


class Encoder(nn.Module):
    """Images to `outputs` numbers per place; the image is halved between two entries of `channels`.

    blocks: per resolution. groups: of every GroupNorm, None for its default.
    """

    def __init__(self, inputs: int, outputs: int, channels: tuple[int, ...], blocks: int, groups: int | None):
        super().__init__()
        self.enter = Conv2d(inputs, channels[0])
        befores = (channels[0], *channels)
        self.levels = [
            [Block(before if i == 0 else now, now, groups) for i in range(blocks)]
            for before, now in zip(befores, channels, strict=False)
        ]
        self.halve = [Conv2d(now, now, stride=2, padding=0) for now in channels[:-1]]
        self.middle = Middle(channels[-1], groups)
        self.norm = GroupNorm(channels[-1], groups)
        self.leave = Conv2d(channels[-1], outputs)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, inputs) -> (B, H / 2^k, W / 2^k, outputs), k = len(channels) - 1."""
        h = self.enter(x)
        for level, blocks in enumerate(self.levels):
            for block in blocks:
                h = block(h)
            if level < len(self.halve):
                h = self.halve[level](mx.pad(h, [(0, 0), (0, 1), (0, 1), (0, 0)]))  # only below and to the right
        return self.leave(self.norm(self.middle(h), silu=True))


class Decoder(nn.Module):
    """The way back; `channels` as the encoder has them, with one more block per resolution."""

    def __init__(self, inputs: int, outputs: int, channels: tuple[int, ...], blocks: int, groups: int | None):
        super().__init__()
        back = channels[::-1]
        self.enter = Conv2d(inputs, back[0])
        self.middle = Middle(back[0], groups)
        befores = (back[0], *back)
        self.levels = [
            [Block(before if i == 0 else now, now, groups) for i in range(blocks + 1)]
            for before, now in zip(befores, back, strict=False)
        ]
        self.grow = [Conv2d(now, now) for now in back[:-1]]
        self.norm = GroupNorm(back[-1], groups)
        self.leave = Conv2d(back[-1], outputs)

    def __call__(self, z: mx.array) -> mx.array:
        """(B, h, w, inputs) -> (B, 2^k h, 2^k w, outputs), k = len(channels) - 1."""
        h = self.middle(self.enter(z))
        for level, blocks in enumerate(self.levels):
            for block in blocks:
                h = block(h)
            if level < len(self.grow):
                h = self.grow[level](h, doubled=True)
        return self.leave(self.norm(h, silu=True))
