"""A transformer from one sequence of tokens to another (arXiv 1706.03762), laid out as FastEstimator's translator."""

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from models.layers import Dropout
from models.tokens import xavier_linear
from models.transformer import DecoderBlock, EncoderBlock, causal_mask, split_key
from runtime.errors import UsageError


def sine_positions(length: int, hidden: int) -> np.ndarray:
    """Fixed (L, hidden) float32: sine and cosine by turns of the place times 10000^(-2 i / hidden)."""
    angles = np.arange(length)[:, None] * 10_000.0 ** (-np.arange(0, hidden, 2) / hidden)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, hidden).astype(np.float32)


class Transformer(nn.Module):
    """Source and target tokens to logits of the next target token; norms stand after the sums, as in the paper.

    sources, targets: sizes of the vocabularies. hidden: even. width: of the perceptrons. context: longest sequence.
    padding: the token that nothing may look at. Embeddings start from N(0, 1 / hidden).
    """

    independent_rows = True

    def __init__(
        self,
        sources: int,
        targets: int,
        hidden: int = 128,
        depth: int = 4,
        heads: int = 8,
        width: int = 512,
        dropout: float = 0.1,
        context: int = 1000,
        padding: int = 0,
    ):
        super().__init__()
        if hidden % 2:
            raise UsageError(f"Transformer: hidden must be even (sines and cosines), got {hidden}.")
        self.context, self.padding, self.scale = context, padding, math.sqrt(hidden)
        self.source = mx.random.normal((sources, hidden)) / self.scale
        self.target = mx.random.normal((targets, hidden)) / self.scale
        self._positions = mx.array(sine_positions(context, hidden))  # a constant, no state
        self.encoder = [EncoderBlock(hidden, heads, width, dropout) for _ in range(depth)]
        self.decoder = [DecoderBlock(hidden, heads, width, dropout) for _ in range(depth)]
        self.head = xavier_linear(hidden, targets)
        self.dropout = Dropout(dropout)

    def embedded(self, table: mx.array, tokens: mx.array, key: mx.array | None) -> mx.array:
        """(B, T) -> (B, T, hidden); raises UsageError for more than `context` tokens."""
        if tokens.ndim != 2 or tokens.shape[1] > self.context:
            raise UsageError(f"Transformer: tokens must be (B, T) with at most context={self.context} of them, got "
                             f"{tuple(tokens.shape)}.")  # fmt: skip
        places = self._positions[: tokens.shape[1]].astype(table.dtype)
        return self.dropout(table[tokens] * self.scale + places, key)

    def __call__(self, source: mx.array, target: mx.array, key: mx.array | None = None) -> mx.array:
        """source (B, S), target (B, T) int -> logits (B, T, targets); a sequence must not begin with padding."""
        first, second, *keys = split_key(key, 2 + len(self.encoder) + len(self.decoder))
        visible = (source != self.padding)[:, None, None]
        mask = (target != self.padding)[:, None, None] & causal_mask(target.shape[1])
        memory = self.embedded(self.source, source, first)
        for block, own in zip(self.encoder, keys, strict=False):
            memory, _ = block(memory, visible, own)
        h = self.embedded(self.target, target, second)
        for block, own in zip(self.decoder, keys[len(self.encoder) :], strict=True):
            h = block(h, memory, mask, visible, own)
        return self.head(h)
