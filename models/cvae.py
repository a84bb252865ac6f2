"""The halves of a convolutional variational autoencoder (arXiv 1312.6114) for small images, as FastEstimator's apphub.

With its sizes: 28 x 28 x 1, two latent numbers.
"""

import mlx.core as mx
import mlx.nn as nn

from models.convolution import ConvTranspose2d
from models.layers import check_sample, image_shape
from models.linear import Linear
from models.starts import with_bias
from runtime.errors import UsageError


def reparametrise(mean: mx.array, logvar: mx.array, key: mx.array) -> mx.array:
    """mean + exp(logvar / 2) times normal numbers drawn with key; all (B, latent)."""
    return mean + mx.exp(0.5 * logvar) * mx.random.normal(mean.shape, mean.dtype, key=key)


class Encoder(nn.Module):
    """Images to the mean and log variance of their latent numbers.

    shape: [height, width, channels], at least 7 x 7; raises UsageError for less.
    """

    independent_rows = True

    def __init__(self, shape: tuple | list = (28, 28, 1), latent: int = 2):
        super().__init__()
        self.shape = image_shape(self, shape)
        height, width, channels = self.shape
        if min(height, width) < 7:
            raise UsageError(f"Encoder: height and width must be at least 7, got {height} x {width}.")
        self.conv1 = with_bias(channels, 32, stride=2, padding=0)
        self.conv2 = with_bias(32, 64, stride=2, padding=0)
        rows, columns = (((n - 1) // 2 - 1) // 2 for n in (height, width))
        self.leave = Linear(rows * columns * 64, 2 * latent)

    def __call__(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """(B, H, W, C) -> mean and log variance, (B, latent) each."""
        check_sample(self, x, self.shape)
        h = nn.relu(self.conv1(x.astype(self.conv1.weight.dtype)))
        mean, logvar = mx.split(self.leave(nn.relu(self.conv2(h)).reshape(len(x), -1)), 2, axis=-1)
        return mean, logvar


class Decoder(nn.Module):
    """Latent numbers to images in [0, 1]; logits: what the sigmoid takes instead.

    shape: [height, width, channels], multiples of 4; raises UsageError for others.
    """

    independent_rows = True

    def __init__(self, shape: tuple | list = (28, 28, 1), latent: int = 2, logits: bool = False):
        super().__init__()
        self.shape, self.logits = image_shape(self, shape), logits
        height, width, channels = self.shape
        if height % 4 or width % 4:
            raise UsageError(f"Decoder: height and width must be multiples of 4, got {height} x {width}.")
        self.enter = Linear(latent, height * width // 16 * 32)
        self.conv1 = ConvTranspose2d(32, 64, stride=2, padding=1, output_padding=1)
        self.conv2 = ConvTranspose2d(64, 32, stride=2, padding=1, output_padding=1)
        self.conv3 = ConvTranspose2d(32, channels, padding=1)

    def __call__(self, z: mx.array) -> mx.array:
        """(B, latent) -> (B, H, W, C)."""
        height, width, _ = self.shape
        h = nn.relu(self.enter(z.astype(self.enter.weight.dtype))).reshape(len(z), height // 4, width // 4, 32)
        h = self.conv3(nn.relu(self.conv2(nn.relu(self.conv1(h)))))
        return h if self.logits else mx.sigmoid(h.astype(mx.float32))
