"""DiT, the diffusion transformer with adaLN-Zero (arXiv 2212.09748), embedding two times as MeanFlow (2505.13447) does.

Sizes and starting weights follow github.com/Gsunshine/meanflow; its time runs the other way: it embeds 1 - r, here r.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from models.attention import attention
from models.checkpointing import checkpointed
from models.elementary import gelu, silu
from models.layers import check_sample, check_times, class_embedding
from models.modulated_norm import modulated
from models.tokens import (
    NumberEmbedding,
    check_heads,
    normal_linear,
    patched_shape,
    patchify,
    unpatchify,
    xavier_linear,
)
from runtime.errors import UsageError


def grid_positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Fixed sines and cosines of the patch's place, (rows * columns, width) float32.

    The first half of a vector tells the column, the second the row: width / 4 sines, then as many cosines, of the
    place times 10000^(-4 i / width).
    """
    waves = 10_000.0 ** (-np.arange(width // 4) / (width / 4))
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    angles = [place.reshape(-1, 1) * waves for place in (column, row)]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


class Block(nn.Module):
    """Self-attention, then a perceptron; the condition scales and shifts their inputs and gates what they add."""

    def __init__(self, hidden: int, heads: int, ratio: float):
        super().__init__()
        self.heads = heads
        self.modulate = normal_linear(hidden, 6 * hidden, 0)
        self.qkv = xavier_linear(hidden, 3 * hidden)
        self.leave = xavier_linear(hidden, hidden)
        self.widen = xavier_linear(hidden, int(ratio * hidden))
        self.narrow = xavier_linear(int(ratio * hidden), hidden)

    def attend(self, x: mx.array) -> mx.array:
        """Self-attention over the tokens, (B, L, D) -> (B, L, D)."""
        count, length, hidden = x.shape
        qkv = self.qkv(x).reshape(count, length, 3, self.heads, hidden // self.heads)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each (B, heads, L, D / heads)
        h = attention(q, k, v, scale=(hidden // self.heads) ** -0.5)
        return self.leave(h.transpose(0, 2, 1, 3).reshape(x.shape))

    def __call__(self, x: mx.array, condition: mx.array) -> mx.array:
        """x (B, L, D), condition (B, D) after its SiLU -> (B, L, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = mx.split(self.modulate(condition)[:, None, :], 6, axis=-1)
        x = x + gate1 * self.attend(modulated(x, shift1, scale1))
        return x + gate2 * self.narrow(gelu(self.widen(modulated(x, shift2, scale2))))


class DiT(nn.Module):
    """Transformer over patches of an image, conditioned on its times and class; the defaults are DiT-B/2.

    shape: [height, width, channels], latents or pixels. patch: edge of a patch in pixels, which divides the image.
    hidden: width, a multiple of 4. ratio: of the perceptrons' width to `hidden`. classes: 0, or their number (one more
    is added for "no class"). checkpoint: each block's insides are computed anew in the backward pass, not kept.
    Published sizes as depth / hidden / heads: S 12/384/6, B 12/768/12, M 16/1024/16, L 24/1024/16, XL 28/1152/16.
    Raises UsageError for sizes that don't divide.
    """

    independent_rows = True

    def __init__(
        self,
        shape: tuple | list,
        patch: int = 2,
        hidden: int = 768,
        depth: int = 12,
        heads: int = 12,
        ratio: float = 4.0,
        classes: int = 0,
        checkpoint: bool = False,
    ):
        super().__init__()
        self.checkpoint = checkpoint
        self.shape, self.patch = patched_shape(self, shape, patch), patch
        check_heads(self, hidden, heads, multiple=1)
        if hidden % 4:
            raise UsageError(f"DiT: hidden must be a multiple of 4 for its 2-D positions, got {hidden}.")
        height, width, channels = self.shape
        self._positions = mx.array(grid_positions(height // patch, width // patch, hidden))  # a constant, no state
        self.enter = xavier_linear(patch * patch * channels, hidden)
        self.start = NumberEmbedding(hidden, std=(0.02, 0.02))
        self.interval = NumberEmbedding(hidden, std=(0.02, 0.02))
        self.label = class_embedding(classes, hidden)
        self.blocks = [Block(hidden, heads, ratio) for _ in range(depth)]
        self.modulate = normal_linear(hidden, 2 * hidden, 0)
        self.leave = normal_linear(hidden, patch * patch * channels, 0)

    def __call__(self, x: mx.array, times=None, key=None, label=None) -> mx.array:
        """x (B, H, W, C), times (B, 2), label (B,) or None -> (B, H, W, C); nothing here is random, key is not used."""
        check_sample(self, x, self.shape)
        times = check_times(x, times)
        start, end = times[:, 0], times[:, 1]
        condition = silu(self.label(self.start(start) + self.interval(end - start), label))
        h = self.enter(patchify(x, self.patch).astype(self.enter.weight.dtype))
        h = h + self._positions.astype(h.dtype)
        for block in self.blocks:
            h = checkpointed(block, h, condition) if self.checkpoint else block(h, condition)
        shift, scale = mx.split(self.modulate(condition)[:, None, :], 2, axis=-1)
        return unpatchify(self.leave(modulated(h, shift, scale)), self.patch, self.shape)
