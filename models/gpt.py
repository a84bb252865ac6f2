"""GPT, a decoder-only transformer over tokens (GPT-2: Radford et al. 2019), with a cache for generation."""

from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn

from models.layers import Dropout
from models.tokens import normal_linear
from models.transformer import EncoderBlock, Nonlinearity, Past, causal_mask, split_key
from runtime.errors import UsageError


class GPT(nn.Module):
    """Tokens to logits of the next; the defaults are GPT-2 small, 124,439,808 parameters.

    context: tokens seen at most. ratio: of the perceptrons' width to `hidden`. dropout: of embeddings, attention
    weights and branches. tied: the head is the token embedding, else a linear layer with a bias. qkv_bias=False,
    activation="relu", tied=False make FastEstimator's (apphub). Matrices start from N(0, .02^2), biases at zero.
    """

    independent_rows = True

    def __init__(
        self,
        vocabulary: int = 50257,
        context: int = 1024,
        hidden: int = 768,
        depth: int = 12,
        heads: int = 12,
        ratio: float = 4.0,
        dropout: float = 0.0,
        qkv_bias: bool = True,
        activation: Nonlinearity = "gelu_tanh",
        tied: bool = True,
    ):
        super().__init__()
        self.vocabulary, self.context = vocabulary, context
        self.tokens = mx.random.normal((vocabulary, hidden)) * 0.02
        self.positions = mx.random.normal((context, hidden)) * 0.02
        self.blocks = [
            EncoderBlock(hidden, heads, int(ratio * hidden), dropout, activation, True, qkv_bias, inner_dropout=False)
            for _ in range(depth)
        ]
        for block in self.blocks:
            attention, perceptron = block.attention, block.perceptron
            for layer in (attention.q, attention.k, attention.v, attention.leave, perceptron.widen, perceptron.narrow):
                layer.weight = mx.random.normal(layer.weight.shape) * 0.02
        self.norm = nn.LayerNorm(hidden)
        if not tied:
            self.head = normal_linear(hidden, vocabulary, 0.02)
        self.dropout = Dropout(dropout)

    def __call__(self, tokens: mx.array, key: mx.array | None = None) -> mx.array:
        """tokens (B, T) int, T at most `context` -> logits (B, T, vocabulary); key switches dropout on."""
        return self.extend(tokens, key=key)[0]

    def extend(
        self, tokens: mx.array, past: list[Past] | None = None, key: mx.array | None = None
    ) -> tuple[mx.array, list[Past]]:
        """Logits (B, T, vocabulary) of `tokens` (B, T) that follow those in `past`, and the past with them."""
        before = past[0][0].shape[2] if past else 0
        length = tokens.shape[-1]
        if tokens.ndim != 2 or before + length > self.context:
            raise UsageError(f"GPT: tokens must be (B, T) with at most context={self.context} of them, got "
                             f"{tuple(tokens.shape)} after {before}.")  # fmt: skip
        first, *keys = split_key(key, len(self.blocks) + 1)
        h = self.dropout(self.tokens[tokens] + self.positions[before : before + length], first)
        mask = causal_mask(length, before)
        seen = []
        for block, own, old in zip(self.blocks, keys, past or [None] * len(self.blocks), strict=True):
            h, new = block(h, mask, own, old)
            seen.append(new)
        h = self.norm(h)
        return (self.head(h) if "head" in self else h @ self.tokens.T), seen

    def generate(
        self,
        tokens: mx.array,
        count: int,
        key: mx.array | None = None,
        temperature: float = 1.0,
        top: int | None = None,
    ) -> Iterator[mx.array]:
        """Yields `count` further tokens (B,) for prompts (B, T): the likeliest without a key, else drawn with it.

        temperature: divides the logits. top: draw from the likeliest `top` only. Past `context` tokens the oldest half
        is forgotten and the rest read anew.
        """
        read, past = tokens[:, -self.context :], None
        seen = read
        for own in split_key(key, count):
            if past is not None and seen.shape[1] > self.context:
                seen = seen[:, -max(1, self.context // 2) :]
                read, past = seen, None
            logits, past = self.extend(read, past)
            logits = logits[:, -1].astype(mx.float32)
            if top is not None and top < self.vocabulary:
                least = mx.sort(logits, axis=-1)[:, self.vocabulary - top, None]
                logits = mx.where(logits < least, -mx.inf, logits)
            drawn = logits.argmax(axis=-1) if own is None else mx.random.categorical(logits / temperature, key=own)
            read = drawn[:, None].astype(tokens.dtype)
            seen = mx.concatenate([seen, read], axis=1)
            yield read[:, 0]
