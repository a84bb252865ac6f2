"""The loss of a KL autoencoder: squared error of the reconstruction, and how far its latents are from N(0, 1).

Kingma and Welling (arXiv 1312.6114), equation 10, with a weight on the divergence as latent diffusion has it
(arXiv 2112.10752, appendix G).
"""

import mlx.core as mx
import mlx.nn as nn

from losses.conditioning import masked_mean, row_means
from runtime.errors import UsageError
from runtime.op import Batch, Context, Objective


class AutoencoderLoss(Objective):
    """Mean over rows of (|x' - x|^2 + kl_weight KL) / D, D numbers to an image; x' from a drawn latent while training.

    KL: of N(mean, exp(logvar)) from N(0, 1), summed over a row's latents, nats. Outside training the mean is decoded.
    """

    extras = metrics = ("mse", "kl")

    def __init__(self, kl_weight: float = 1e-3):
        if not kl_weight >= 0:
            raise UsageError(f"AutoencoderLoss: kl_weight must be at least 0, got {kl_weight}.")
        self.kl_weight = kl_weight

    def check(self, model: nn.Module) -> None:
        """Raises UsageError for a model that is no autoencoder."""
        if not hasattr(type(model), "moments"):
            raise UsageError(f"loss=autoencoder trains networks with moments(x), such as model=autoencoder; "
                             f"{type(model).__name__} has none.")  # fmt: skip

    def __call__(self, model, batch: Batch, ctx: Context) -> tuple[mx.array, Batch]:
        """Loss in float32; per row "mse", the mean squared error, and "kl" in nats, (B,) each."""
        x = batch["x"]
        out, mean, logvar = model(x, key=ctx.key if ctx.mode == "train" else None)
        mse = row_means(mx.square(out.astype(mx.float32) - x))
        kl = divergence(mean.astype(mx.float32), logvar.astype(mx.float32))
        loss = masked_mean(mse + self.kl_weight / x[0].size * kl, batch)
        return loss, {"mse": mx.stop_gradient(mse), "kl": mx.stop_gradient(kl)}


def divergence(mean: mx.array, logvar: mx.array) -> mx.array:
    """KL of N(mean, exp(logvar)) from N(0, 1) in nats, summed over all but the rows, (B, ...) -> (B,)."""
    each = (mx.square(mean) + mx.exp(logvar) - 1 - logvar) / 2
    return each.reshape(each.shape[0], -1).sum(axis=1)
