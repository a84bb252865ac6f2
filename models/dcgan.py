"""DCGAN's generator and discriminator (arXiv 1511.06434) for small images, laid out as FastEstimator's apphub."""

import mlx.core as mx
import mlx.nn as nn

from models.batch_norm import BatchNorm
from models.convolution import ConvTranspose2d
from models.layers import check_sample, image_shape
from models.linear import Linear
from models.starts import with_bias
from runtime.errors import UsageError


def leaky(x: mx.array) -> mx.array:
    """x where it is positive, a hundredth of it elsewhere, elementwise."""
    return mx.maximum(x, 0.01 * x)


def quartered(model: nn.Module, shape: tuple | list) -> tuple[int, int, int]:
    """The sample shape (H, W, C); raises UsageError unless height and width are multiples of 4."""
    height, width, channels = image_shape(model, shape)
    if height % 4 or width % 4:
        raise UsageError(f"{type(model).__name__}: height and width must be multiples of 4, got {height} x {width}.")
    return height, width, channels


class Generator(nn.Module):
    """Noise to images in [-1, 1]: 2,305,472 parameters by default. channels: of the first map, halved per layer."""

    independent_rows = True

    def __init__(self, shape: tuple | list = (28, 28, 1), noise: int = 100, channels: int = 256):
        super().__init__()
        self.shape = quartered(self, shape)
        height, width, colours = self.shape
        self.channels, first = channels, height * width // 16 * channels
        self.enter, self.norm1 = Linear(noise, first, bias=False), BatchNorm(first)
        self.conv1 = ConvTranspose2d(channels, channels // 2, 5, padding=2, bias=False)
        self.norm2 = BatchNorm(channels // 2)
        grow = {"stride": 2, "padding": 2, "output_padding": 1, "bias": False}
        self.conv2 = ConvTranspose2d(channels // 2, channels // 4, 5, **grow)
        self.norm3 = BatchNorm(channels // 4)
        self.conv3 = ConvTranspose2d(channels // 4, colours, 5, **grow)

    def __call__(self, z: mx.array) -> mx.array:
        """(B, noise) -> (B, H, W, C)."""
        height, width, _ = self.shape
        h = leaky(self.norm1(self.enter(z.astype(self.enter.weight.dtype))))
        h = h.reshape(len(z), height // 4, width // 4, self.channels)
        h = leaky(self.norm3(self.conv2(leaky(self.norm2(self.conv1(h))))))
        return mx.tanh(self.conv3(h))


class ChannelDropout(nn.Module):
    """Sets whole channels of a sample to zero with probability p, scales the rest by 1 / (1 - p); needs a key."""

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise UsageError(f"dropout must lie in [0, 1), got {p}.")
        self.p = p

    @property
    def independent_rows(self) -> bool:
        """Whether nothing is drawn here; see runtime/streams.py."""
        return self.p == 0 or not self.training

    def __call__(self, x: mx.array, key: mx.array | None) -> mx.array:
        """(B, H, W, C) -> the same; without a key nothing is dropped."""
        if key is None or self.p == 0 or not self.training:
            return x
        keep = mx.random.bernoulli(1 - self.p, (x.shape[0], 1, 1, x.shape[-1]), key=key)
        return mx.where(keep, x * (1 / (1 - self.p)), mx.zeros_like(x))


class Discriminator(nn.Module):
    """Images to one logit, high for real ones: 212,865 parameters by default. dropout: of whole channels."""

    independent_rows = True

    def __init__(self, shape: tuple | list = (28, 28, 1), channels: int = 64, dropout: float = 0.3):
        super().__init__()
        self.shape = quartered(self, shape)
        height, width, colours = self.shape
        self.conv1 = with_bias(colours, channels, 5, stride=2)
        self.conv2 = with_bias(channels, 2 * channels, 5, stride=2)
        self.leave = Linear(height * width // 16 * 2 * channels, 1)
        self.dropout = ChannelDropout(dropout)

    def __call__(self, x: mx.array, key: mx.array | None = None) -> mx.array:
        """(B, H, W, C) -> (B, 1); key switches dropout on."""
        check_sample(self, x, self.shape)
        first, second = (None, None) if key is None else mx.random.split(key)
        h = self.dropout(leaky(self.conv1(x.astype(self.conv1.weight.dtype))), first)
        h = self.dropout(leaky(self.conv2(h)), second)
        return self.leave(h.reshape(len(x), -1))
