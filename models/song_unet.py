"""SongUNet: EDM's form of the DDPM++ network (arXiv 2011.13456, 2206.00364), official MeanFlow's for CIFAR-10.

As in github.com/Gsunshine/py-meanflow, where noise is at t=1: of the pair (start r, end t) it embeds 1 - r and t - r.
Sums of two branches are scaled by the root of 1/2.
"""

import math

import mlx.core as mx
import mlx.nn as nn

from models.attention import attention
from models.checkpointing import checkpointed
from models.convolution import Conv2d
from models.elementary import silu
from models.group_norm import GroupNorm
from models.layers import Dropout, check_halvings, check_sample, check_times, class_embedding, image_shape
from models.linear import Linear
from models.tokens import normal_linear
from runtime.errors import UsageError

ROOT = math.sqrt(0.5)
ZERO = 1e-5  # layers that end a branch start at this share of Xavier's weights


def linear(inputs: int, outputs: int, share: float = 1.0, bias: bool = True) -> Linear:
    """A linear layer with `share` of Xavier-uniform weights and a bias of zero."""
    layer = normal_linear(inputs, outputs, 0, bias)
    bound = math.sqrt(6 / (inputs + outputs)) * share
    layer.weight = mx.random.uniform(-bound, bound, layer.weight.shape)
    return layer


def convolution(inputs: int, outputs: int, share: float = 1.0) -> Conv2d:
    """A 3 x 3 convolution with `share` of Xavier-uniform weights and a bias of zero."""
    layer = Conv2d(inputs, outputs)
    bound = math.sqrt(6 / (9 * (inputs + outputs))) * share
    layer.weight = mx.random.uniform(-bound, bound, layer.weight.shape)
    return layer


def norm(channels: int) -> GroupNorm:
    """Group normalisation with at most 32 groups, of 4 channels or more."""
    return GroupNorm(channels, min(32, max(1, channels // 4)))


def padded(x: mx.array, axis: int) -> mx.array:
    """x (B, H, W, C) with one zero at each end of an axis."""
    return mx.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)])


def halved(x: mx.array) -> mx.array:
    """Both image axes at half their length, (B, H, W, C) -> (B, H/2, W/2, C), by the filter [1, 3, 3, 1] / 8."""
    for axis in (1, 2):
        pairs = padded(x, axis)
        pairs = pairs.reshape(*x.shape[:axis], x.shape[axis] // 2 + 1, 2, *x.shape[axis + 1 :])
        (a, c), (b, d) = (ends(v.squeeze(axis + 1), axis, 1) for v in mx.split(pairs, 2, axis=axis + 1))
        x = (a + 3 * b + 3 * c + d) * 0.125
    return x


def doubled(x: mx.array) -> mx.array:
    """Both image axes at twice their length, (B, H, W, C) -> (B, 2H, 2W, C), by the filter [1, 3, 3, 1] / 4."""
    for axis in (1, 2):
        before, after = ends(padded(x, axis), axis, 2)
        shape = (*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
        x = mx.stack([(3 * x + before) * 0.25, (3 * x + after) * 0.25], axis=axis + 1).reshape(shape)
    return x


def ends(x: mx.array, axis: int, count: int) -> tuple[mx.array, mx.array]:
    """x (B, H, W, C) without its last, and without its first `count` places on an axis."""
    length = x.shape[axis]
    return mx.split(x, [length - count], axis=axis)[0], mx.split(x, [count], axis=axis)[1]


class Attention(nn.Module):
    """(x + self-attention over all pixels) / root of 2."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        if channels % heads:
            raise UsageError(f"SongUNet: heads must divide the {channels} channels at an attention level, got {heads}.")
        self.heads = heads
        self.norm = norm(channels)
        self.qkv = linear(channels, 3 * channels, math.sqrt(0.2))
        self.leave = linear(channels, channels, ZERO)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) -> (B, H, W, C)."""
        count, height, width, channels = x.shape
        qkv = self.qkv(self.norm(x)).reshape(count, height * width, 3, self.heads, channels // self.heads)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each (B, heads, H W, C / heads)
        h = attention(q, k, v, scale=(channels // self.heads) ** -0.5)
        return (x + self.leave(h.transpose(0, 2, 1, 3).reshape(x.shape))) * ROOT


class Stage(nn.Module):
    """A residual block, shifted by the embedding (B, E), then attention where `heads` is not 0.

    resample: `halved` or `doubled`, of both branches, or None.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float, heads: int = 0, resample=None):
        super().__init__()
        self.resample = resample
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1, self.conv2 = convolution(inputs, outputs), convolution(outputs, outputs, ZERO)
        self.shift = linear(embedding, outputs)
        self.dropout = Dropout(dropout)
        self.skip = linear(inputs, outputs) if inputs != outputs or resample else nn.Identity()
        self.attention = Attention(outputs, heads) if heads else nn.Identity()

    def __call__(self, x: mx.array, embedding: mx.array, key: mx.array | None) -> mx.array:
        """(B, H, W, inputs) -> (B, H', W', outputs)."""
        h = self.norm1(x, silu=True)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.norm2(self.conv1(h) + self.shift(embedding)[:, None, None, :], silu=True)
        return self.attention((self.skip(x) + self.conv2(self.dropout(h, key))) * ROOT)


def waves(times: mx.array, features: int) -> mx.array:
    """times (B, N) -> (B, N features): for each sines, then cosines, of periods 2 pi to 20000 pi."""
    half = features // 2
    angles = times[:, :, None] * mx.exp(mx.arange(half).astype(times.dtype) * (-math.log(10_000) / (half - 1)))
    return mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=-1).reshape(times.shape[0], -1)


class SongUNet(nn.Module):
    """Encoder and decoder with concatenated skip connections; for 32 x 32 the defaults are the published 55.9M network.

    multipliers: channels of each resolution over `channels`; between two entries the image is halved.
    blocks: stages per resolution (one more in the decoder). attention: heights (pixels) at which the encoder's stages
    attend and the decoder's last; the middle always does. classes: 0, or the number of classes (one more is added for
    "no class"). augment: columns of the condition "augment" (B, 9) that are embedded; py-meanflow's six are
    [0, 2, 5, 6, 7, 8] and make 55,932,419 parameters of 55,929,347. checkpoint: each stage's insides are computed anew
    in the backward pass, not kept. Raises UsageError for sizes that don't fit.
    """

    independent_rows = True

    def __init__(
        self,
        shape: tuple | list,
        channels: int = 128,
        multipliers: tuple | list = (2, 2, 2),
        blocks: int = 4,
        attention: tuple | list = (16,),
        heads: int = 1,
        dropout: float = 0.2,
        classes: int = 0,
        augment: tuple | list = (),
        checkpoint: bool = False,
    ):
        super().__init__()
        self.checkpoint = checkpoint
        self.shape = image_shape(self, shape)
        height, _, colours = self.shape
        halvings = len(multipliers) - 1
        check_halvings(self, self.shape, halvings)
        if channels % 4:
            raise UsageError(f"SongUNet: channels must be a multiple of 4, got {channels}.")
        self.columns, self.features, embedding = tuple(augment), 2 * channels, 4 * channels
        self.label = class_embedding(classes, 2 * self.features)
        if self.columns:
            self.augment = linear(len(self.columns), 2 * self.features, bias=False)
        self.time1, self.time2 = linear(2 * self.features, embedding), linear(embedding, embedding)

        def stage(inputs: int, outputs: int, attends: bool, resample=None) -> Stage:
            return Stage(inputs, outputs, embedding, dropout, heads if attends else 0, resample)

        self.enter = convolution(colours, channels)
        now, left, self.down = channels, [channels], []  # left: channels of the maps that wait for the decoder
        for level, multiplier in enumerate(multipliers):
            stages = [stage(now, now, False, halved)] if level else []
            left += [now] if level else []
            for _ in range(blocks):
                stages.append(stage(now, multiplier * channels, height >> level in attention))
                now = multiplier * channels
                left.append(now)
            self.down.append(stages)
        self.middle, self.up = [stage(now, now, True), stage(now, now, False)], []
        for level, multiplier in reversed(list(enumerate(multipliers))):
            stages = [stage(now, now, False, doubled)] if level < halvings else []
            for index in range(blocks + 1):
                attends = index == blocks and height >> level in attention
                stages.append(stage(now + left.pop(), multiplier * channels, attends))
                now = multiplier * channels
            self.up.append(stages)
        self.norm, self.leave = norm(now), convolution(now, colours, ZERO)
        self.stages = sum(map(len, (*self.down, self.middle, *self.up)))

    def embedded(self, times: mx.array, label: mx.array | None, augment: mx.array | None) -> mx.array:
        """The embedding (B, E) of the times, the class and what an augmentation did (None: nothing)."""
        both = mx.stack([1 - times[:, 0], times[:, 1] - times[:, 0]], axis=1)
        found = waves(both, self.features).astype(self.time1.weight.dtype)
        found = self.label(found, label)
        if augment is not None:
            if not self.columns:
                raise UsageError("this SongUNet was built with augment=[] and got the condition augment; build it with "
                                 "the columns it should see, as model.augment=[0,2,5,6,7,8].")  # fmt: skip
            if augment.ndim != 2 or augment.shape[0] != times.shape[0] or augment.shape[1] <= max(self.columns):
                raise UsageError(f"augment must be ({times.shape[0]}, {max(self.columns) + 1} or more) for the columns "
                                 f"{list(self.columns)}, got {tuple(augment.shape)}.")  # fmt: skip
            found = found + self.augment(augment[:, mx.array(self.columns)].astype(found.dtype))
        return silu(self.time2(silu(self.time1(found))))

    def __call__(self, x: mx.array, times=None, key=None, label=None, augment=None) -> mx.array:
        """x (B, H, W, C), times (B, 2), label (B,), augment (B, 9) -> (B, H, W, C); key switches dropout on."""
        check_sample(self, x, self.shape)
        embedding = self.embedded(check_times(x, times), label, augment)
        keys = iter([None] * self.stages if key is None else mx.random.split(key, self.stages))

        def run(stage: Stage, h: mx.array) -> mx.array:
            key = next(keys)
            return checkpointed(stage, h, embedding, key) if self.checkpoint else stage(h, embedding, key)

        h = self.enter(x.astype(self.enter.weight.dtype))
        left = [h]
        for stage in (stage for stages in self.down for stage in stages):
            h = run(stage, h)
            left.append(h)
        for stage in self.middle:
            h = run(stage, h)
        for stage in (stage for stages in self.up for stage in stages):
            h = run(stage, h if stage.resample else mx.concatenate([h, left.pop()], axis=-1))
        return self.leave(self.norm(h, silu=True))
