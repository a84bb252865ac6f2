"""Transformer blocks for encoders and decoders (Vaswani et al., arXiv 1706.03762), norm first or after.

With norm_first=False they compute what PyTorch's TransformerEncoderLayer and TransformerDecoderLayer do.
"""

import math
from collections.abc import Callable
from typing import Literal

import mlx.core as mx
import mlx.nn as nn

from models.attention import attention
from models.layers import Dropout
from models.tokens import check_heads, xavier_linear
from runtime.host import namespace

Past = tuple[mx.array, mx.array]  # keys and values of the tokens before, each (B, heads, T, D)
Nonlinearity = Literal["relu", "gelu", "gelu_tanh"]


def gelu(x: mx.array) -> mx.array:
    """x Phi(x), exactly, elementwise (arXiv 1606.08415)."""
    return 0.5 * x * (1 + namespace(x).erf(x * math.sqrt(0.5)))


def gelu_tanh(x: mx.array) -> mx.array:
    """GELU in its tanh form, as GPT-2 has it, elementwise."""
    return 0.5 * x * (1 + namespace(x).tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def relu(x: mx.array) -> mx.array:
    """max(x, 0), elementwise; of NumPy's arrays too."""
    return namespace(x).maximum(x, 0)


NONLINEARITIES: dict[str, Callable[[mx.array], mx.array]] = {"relu": relu, "gelu": gelu, "gelu_tanh": gelu_tanh}


def split_key(key: mx.array | None, count: int) -> list[mx.array | None]:
    """`count` keys (2,) from one (2,), or as many None."""
    return [None] * count if key is None else list(mx.random.split(key, count))


class MultiHeadAttention(nn.Module):
    """Attention in `heads` parts, to the tokens themselves or to those of a memory.

    bias: of queries, keys and values; the projection at the end always has one. dropout: of the attention weights.
    """

    def __init__(self, hidden: int, heads: int, dropout: float = 0.0, bias: bool = True):
        super().__init__()
        check_heads(self, hidden, heads, multiple=1)
        self.heads = heads
        self.q, self.k, self.v = (xavier_linear(hidden, hidden) for _ in range(3))
        if not bias:
            for layer in (self.q, self.k, self.v):
                del layer["bias"]
        self.leave = xavier_linear(hidden, hidden)
        self.dropout = Dropout(dropout)

    def __call__(
        self,
        x: mx.array,
        memory: mx.array | None = None,
        mask: mx.array | None = None,
        key: mx.array | None = None,
        past: Past | None = None,
    ) -> tuple[mx.array, Past]:
        """x (B, T, D), memory (B, M, D) or None for x itself -> (B, T, D), keys and values (B, heads, past + M, D').

        mask: bool, broadcast to (B, heads, T, past + M), true where a token may look. key: switches dropout on.
        """
        count, length, hidden = x.shape
        source = x if memory is None else memory

        def heads(h: mx.array) -> mx.array:
            return h.reshape(count, -1, self.heads, hidden // self.heads).transpose(0, 2, 1, 3)

        q, k, v = heads(self.q(x)), heads(self.k(source)), heads(self.v(source))
        if past is not None:
            k, v = mx.concatenate([past[0], k], axis=2), mx.concatenate([past[1], v], axis=2)
        scale = (hidden // self.heads) ** -0.5
        if key is not None and self.dropout.p and self.training:
            scores = scale * q @ k.swapaxes(-1, -2)
            if mask is not None:
                scores = mx.where(mask, scores, mx.finfo(scores.dtype).min)
            h = self.dropout(mx.softmax(scores, axis=-1, precise=True), key) @ v
        else:
            h = attention(q, k, v, scale=scale, mask=mask)
        return self.leave(h.transpose(0, 2, 1, 3).reshape(count, length, hidden)), (k, v)


class Perceptron(nn.Module):
    """Two linear layers with a nonlinearity between; inner_dropout: also after it, as PyTorch's layers have it."""

    def __init__(self, hidden: int, width: int, dropout: float, activation: Nonlinearity, inner_dropout: bool = True):
        super().__init__()
        self.widen, self.narrow = xavier_linear(hidden, width), xavier_linear(width, hidden)
        self.activation, self.inner = NONLINEARITIES[activation], inner_dropout
        self.dropout = Dropout(dropout)

    def __call__(self, x: mx.array, key: mx.array | None) -> mx.array:
        """(B, T, D) -> (B, T, D)."""
        first, second = split_key(key, 2)
        h = self.activation(self.widen(x))
        return self.dropout(self.narrow(self.dropout(h, first) if self.inner else h), second)


class EncoderBlock(nn.Module):
    """Self-attention, then a perceptron of `width`, each added to what it takes.

    norm_first: layer norm before each (GPT, ViT), else after each sum (the paper). bias: of queries, keys and values.
    inner_dropout: as Perceptron has it. eps: of the layer norms.
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        width: int,
        dropout: float = 0.0,
        activation: Nonlinearity = "relu",
        norm_first: bool = False,
        bias: bool = True,
        inner_dropout: bool = True,
        eps: float = 1e-5,
    ):
        super().__init__()
        self.norm_first = norm_first
        self.attention = MultiHeadAttention(hidden, heads, dropout, bias)
        self.perceptron = Perceptron(hidden, width, dropout, activation, inner_dropout)
        self.norm1, self.norm2 = nn.LayerNorm(hidden, eps), nn.LayerNorm(hidden, eps)
        self.dropout = Dropout(dropout)

    def __call__(
        self, x: mx.array, mask: mx.array | None = None, key: mx.array | None = None, past: Past | None = None
    ) -> tuple[mx.array, Past]:
        """x (B, T, D) -> (B, T, D), and the keys and values to hand over as `past`; mask as MultiHeadAttention's."""
        keys = split_key(key, 3)
        h, seen = self.attention(self.norm1(x) if self.norm_first else x, mask=mask, key=keys[0], past=past)
        x = x + self.dropout(h, keys[1])
        if self.norm_first:
            return x + self.perceptron(self.norm2(x), keys[2]), seen
        x = self.norm1(x)
        return self.norm2(x + self.perceptron(x, keys[2])), seen


class DecoderBlock(nn.Module):
    """Self-attention, attention to an encoder's tokens, then a perceptron of `width`, each added to what it takes."""

    def __init__(
        self,
        hidden: int,
        heads: int,
        width: int,
        dropout: float = 0.0,
        activation: Nonlinearity = "relu",
        norm_first: bool = False,
    ):
        super().__init__()
        self.norm_first = norm_first
        self.attention, self.cross = (MultiHeadAttention(hidden, heads, dropout) for _ in range(2))
        self.perceptron = Perceptron(hidden, width, dropout, activation)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(hidden) for _ in range(3))
        self.dropout = Dropout(dropout)

    def __call__(
        self,
        x: mx.array,
        memory: mx.array,
        mask: mx.array | None = None,
        memory_mask: mx.array | None = None,
        key: mx.array | None = None,
    ) -> mx.array:
        """x (B, T, D), memory (B, M, D) -> (B, T, D); masks as MultiHeadAttention's, for x and for memory."""
        keys = split_key(key, 5)

        def attended(x: mx.array) -> mx.array:
            return self.dropout(self.attention(x, mask=mask, key=keys[0])[0], keys[1])

        def crossed(x: mx.array) -> mx.array:
            return self.dropout(self.cross(x, memory, memory_mask, keys[2])[0], keys[3])

        def widened(x: mx.array) -> mx.array:
            return self.perceptron(x, keys[4])

        for part, norm in ((attended, self.norm1), (crossed, self.norm2), (widened, self.norm3)):
            x = x + part(norm(x)) if self.norm_first else norm(x + part(x))
        return x


def causal_mask(length: int, past: int = 0) -> mx.array:
    """(length, past + length) bool: token i may look at those before it and at itself."""
    return mx.arange(past + length) <= (past + mx.arange(length))[:, None]
