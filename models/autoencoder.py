"""A KL autoencoder: images to the mean and spread of a smaller map of numbers, and back (arXiv 2112.10752)."""

import mlx.core as mx
import mlx.nn as nn

from models.codec import Decoder, Encoder
from models.convolution import Conv2d
from models.layers import check_sample, image_shape
from runtime.errors import UsageError

LOGVAR = (-30.0, 20.0)  # bounds of the log-variance, diffusers' own


class Autoencoder(nn.Module):
    """Images (H, W, C) to latents (H / 2^k, W / 2^k, latent) and back, k = len(channels) - 1.

    Train it with loss=autoencoder. channels: of each resolution. blocks: per resolution, one more on the way back.
    groups: of every GroupNorm, None for at most 32 of 8 channels or more. Sizes that don't divide raise UsageError.
    """

    def __init__(
        self,
        shape: tuple | list,
        latent: int = 4,
        channels: tuple | list = (32, 64, 64),
        blocks: int = 1,
        groups: int | None = None,
    ):
        super().__init__()
        self.shape = image_shape(self, shape)
        if not channels or latent < 1 or blocks < 1:
            raise UsageError(f"{type(self).__name__} needs at least one entry in channels, a latent channel and a "
                             f"block, got channels={list(channels)}, latent={latent}, blocks={blocks}.")  # fmt: skip
        halved = 2 ** (len(channels) - 1)
        height, width, colours = self.shape
        if height % halved or width % halved:
            raise UsageError(f"{type(self).__name__} with {len(channels)} entries in channels makes images {halved} "
                             f"times smaller: height and width must be multiples, got {height} x {width}.")  # fmt: skip
        self.latent_shape = (height // halved, width // halved, latent)
        self.encoder = Encoder(colours, 2 * latent, tuple(channels), blocks, groups)
        self.to_moments = Conv2d(2 * latent, 2 * latent, kernel=1)
        self.from_latent = Conv2d(latent, latent, kernel=1)
        self.decoder = Decoder(latent, colours, tuple(channels), blocks, groups)

    def moments(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """Images x (B, H, W, C) -> mean and log-variance of their latents, (B, h, w, latent) each."""
        check_sample(self, x, self.shape)
        h = self.encoder(x.astype(self.to_moments.weight.dtype))
        mean, logvar = mx.split(self.to_moments(h), 2, axis=-1)
        return mean, mx.clip(logvar, *LOGVAR)

    def encode(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """Images x (B, H, W, C) -> mean and standard deviation of their latents, (B, h, w, latent) each, not scaled."""
        mean, logvar = self.moments(x)
        return mean, mx.exp(logvar / 2)

    def decode(self, z: mx.array) -> mx.array:
        """Latents z (B, h, w, latent) as `encode` gives them, not scaled -> images (B, H, W, C)."""
        if tuple(z.shape[1:]) != self.latent_shape:
            needed = ", ".join(["B", *map(str, self.latent_shape)])
            raise UsageError(f"{type(self).__name__} decodes latents of shape ({needed}), got {tuple(z.shape)}.")
        return self.decoder(self.from_latent(z.astype(self.from_latent.weight.dtype)))

    def __call__(self, x: mx.array, times=None, key: mx.array | None = None) -> tuple[mx.array, mx.array, mx.array]:
        """Images x (B, H, W, C) -> their reconstruction, and mean and log-variance (B, h, w, latent) of the latents.

        With a key a latent is drawn, without one the mean is decoded; times mean nothing here.
        """
        mean, logvar = self.moments(x)
        if key is None:
            return self.decode(mean), mean, logvar
        eps = mx.random.normal(mean.shape, mean.dtype, key=key)
        return self.decode(mean + mx.exp(logvar / 2) * eps), mean, logvar
