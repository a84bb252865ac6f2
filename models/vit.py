"""Vision transformers (arXiv 2010.11929; Tiny, Small: DeiT's sizes, arXiv 2012.12877)."""

from functools import partial

import mlx.core as mx
import mlx.nn as nn

from models.layers import Dropout, check_sample
from models.tokens import normal_linear, patched_shape, patchify
from models.transformer import EncoderBlock, split_key


class ViT(nn.Module):
    """Images to logits by a class token among the patches; the defaults are ViT-B/16, 86,567,656 parameters.

    shape: [height, width, channels]. patch: edge in pixels, which divides the image. ratio: of the perceptrons' width
    to `hidden`. dropout: of tokens, attention weights and perceptrons. norm_first=False and patch_bias=False make the
    ViT of FastEstimator's apphub, whose blocks have the norm after the sum. The head starts at zero, the other weights
    from Xavier's uniform, positions from N(0, .02^2). Raises UsageError for sizes that don't divide.
    """

    independent_rows = True

    def __init__(
        self,
        shape: tuple | list = (224, 224, 3),
        classes: int = 1000,
        patch: int = 16,
        hidden: int = 768,
        depth: int = 12,
        heads: int = 12,
        ratio: float = 4.0,
        dropout: float = 0.0,
        norm_first: bool = True,
        patch_bias: bool = True,
    ):
        super().__init__()
        self.shape, self.patch = patched_shape(self, shape, patch), patch
        height, width, channels = self.shape
        self.enter = normal_linear(patch * patch * channels, hidden, (patch * patch * channels) ** -0.5, patch_bias)
        self.token = mx.zeros((1, 1, hidden))
        self.positions = mx.random.normal((1, height * width // patch**2 + 1, hidden)) * 0.02
        eps = 1e-6 if norm_first else 1e-5
        self.blocks = [
            EncoderBlock(hidden, heads, int(ratio * hidden), dropout, "gelu", norm_first, eps=eps) for _ in range(depth)
        ]
        self.norm = nn.LayerNorm(hidden, 1e-6)
        self.head = normal_linear(hidden, classes, 0)
        self.dropout = Dropout(dropout)

    def __call__(self, x: mx.array, key: mx.array | None = None) -> mx.array:
        """(B, H, W, C) -> logits (B, classes); key switches dropout on."""
        check_sample(self, x, self.shape)
        first, *keys = split_key(key, len(self.blocks) + 1)
        h = self.enter(patchify(x, self.patch).astype(self.enter.weight.dtype))
        token = mx.broadcast_to(self.token, (len(x), 1, h.shape[-1]))
        h = self.dropout(mx.concatenate([token, h], axis=1) + self.positions, first)
        for block, own in zip(self.blocks, keys, strict=True):
            h, _ = block(h, key=own)
        return self.head(self.norm(h[:, 0]))


ViTTiny = partial(ViT, hidden=192, depth=12, heads=3)  # 5,717,416 parameters at 224 x 224 x 3, 1000 classes
ViTSmall = partial(ViT, hidden=384, depth=12, heads=6)  # 22,050,664
ViTBase = partial(ViT, hidden=768, depth=12, heads=12)  # 86,567,656
ViTLarge = partial(ViT, hidden=1024, depth=24, heads=16)  # 304,326,632
