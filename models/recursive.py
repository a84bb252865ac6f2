"""Blocks of recursive puzzle models: two residual branches, each followed by an RMS norm without weights.

Sources: HRM (arXiv 2506.21734) and TRM (arXiv 2510.04871), github.com/SamsungSAILMontreal/TinyRecursiveModels.
"""

import math
from typing import Literal

import mlx.core as mx
import mlx.nn as nn

from models.attention import attention
from models.elementary import gated
from models.gate import is_fused, joined
from models.residual_norm import residual_norm
from models.token_mixing import across, from_left
from runtime.errors import UsageError
from runtime.table import Table

Mixer = Literal["attention", "mlp"]
EPS = 1e-5


def truncated_normal(shape: tuple[int, ...], std: float) -> mx.array:
    """Draws (*shape) of a normal cut at two standard deviations, widened so that `std` is what is left of it."""
    cut = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))
    return std / cut * mx.random.truncated_normal(-2.0, 2.0, shape)


def linear(inputs: int, outputs: int) -> mx.array:
    """A weight (outputs, inputs) of standard deviation 1 / sqrt(inputs)."""
    return truncated_normal((outputs, inputs), inputs**-0.5)


def inner_width(width: int, expansion: float) -> int:
    """The width inside of a SwiGLU: two thirds of `expansion` x width, rounded up to a multiple of 256."""
    return -(-round(expansion * width * 2 / 3) // 256) * 256


class SwiGLU(nn.Module):
    """down(silu(gate) up) along the last axis, without biases (arXiv 2002.05202)."""

    matrices = ("gate", "up", "down")  # of few bits in a compressed file, see training/compressed.py

    def __init__(self, width: int, expansion: float):
        super().__init__()
        inner = inner_width(width, expansion)
        self.gate, self.up, self.down = linear(width, inner), linear(width, inner), linear(inner, width)

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., width) -> the same shape."""
        if is_fused(x, len(self.gate)):
            return joined(x @ mx.concatenate([self.gate, self.up]).T, x.ndim - 1) @ self.down.T
        return gated(x @ self.gate.T, x @ self.up.T) @ self.down.T

    def along_tokens(self, x: mx.array) -> mx.array:
        """x (B, width, D) -> the same, along the tokens."""
        if is_fused(x, len(self.gate)):
            both = across(mx.contiguous(mx.concatenate([self.gate, self.up]).T), x)
            return from_left(self.down, joined(both, 1))
        gate, up = (across(mx.contiguous(w.T), x) for w in (self.gate, self.up))
        return from_left(self.down, gated(gate, up))


class SelfAttention(nn.Module):
    """Attention of all tokens to all, with rotary positions in halves (arXiv 2104.09864) and without biases."""

    matrices = ("qkv", "leave")

    def __init__(self, hidden: int, heads: int, theta: float = 10_000.0):
        super().__init__()
        self.heads, self.theta = heads, theta
        self.qkv, self.leave = linear(hidden, 3 * hidden), linear(hidden, hidden)

    def __call__(self, x: mx.array) -> mx.array:
        """x (B, T, D) -> the same shape."""
        count, tokens, hidden = x.shape
        qkv = (x @ self.qkv.T).reshape(count, tokens, 3 * self.heads, -1).swapaxes(1, 2)
        q, k, v = mx.split(qkv, 3, axis=1)
        width = q.shape[-1]
        q, k = (mx.fast.rope(a, width, traditional=False, base=self.theta, scale=1.0, offset=0) for a in (q, k))
        seen = attention(q, k, v, width**-0.5)
        return seen.swapaxes(1, 2).reshape(count, tokens, hidden) @ self.leave.T


class Block(nn.Module):
    """A mixer of tokens and a SwiGLU over channels, each added and then normalised.

    The MLP mixer is a SwiGLU over the tokens; the norm after it is over the tokens too, as in the reference.
    """

    def __init__(self, length: int, hidden: int, heads: int, expansion: float, mixer: Mixer):
        super().__init__()
        if mixer == "mlp":
            self.tokens = SwiGLU(length, expansion)
        elif mixer == "attention":
            if hidden % (2 * heads):
                raise UsageError(f"hidden must be a multiple of twice heads, got hidden={hidden}, heads={heads}.")
            self.attention = SelfAttention(hidden, heads)
        else:
            raise UsageError(f'mixer must be "attention" or "mlp", got {mixer!r}.')
        self.channels = SwiGLU(hidden, expansion)

    def __call__(self, x: mx.array) -> mx.array:
        """x (B, T, D) -> the same shape."""
        if "tokens" in self:
            x = residual_norm(x, self.tokens.along_tokens(x), 1, EPS)
        else:
            x = residual_norm(x, self.attention(x), 2, EPS)
        return residual_norm(x, self.channels(x), 2, EPS)


class Reasoning(nn.Module):
    """A stack of blocks over the sum of a state and what is put into it."""

    def __init__(self, layers: int, length: int, hidden: int, heads: int, expansion: float, mixer: Mixer):
        super().__init__()
        self.blocks = [Block(length, hidden, heads, expansion, mixer) for _ in range(layers)]

    def __call__(self, state: mx.array, injected: mx.array) -> mx.array:
        """Both (B, T, D) -> (B, T, D)."""
        x = state + injected
        for block in self.blocks:
            x = block(x)
        return x


class Puzzler(nn.Module):
    """What TRM and HRM share: tokens and puzzle embedding in, two latent states, logits and two halting logits out.

    vocabulary: tokens there are. length: tokens of a puzzle. prefix: places in front of them for the puzzle's
    embedding, `rows` (B, E) with E at most prefix x hidden, zeros where there is none. ids: puzzles with an embedding
    of their own, rows of width `hidden` in `table` (0: none). layers, high, low: blocks of a network, cycles of a
    supervision step and updates of z in a cycle. The halting logits are read at the first place. A subclass gives
    `think`.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        hidden: int,
        layers: int,
        high: int,
        low: int,
        mixer: Mixer,
        prefix: int,
        ids: int,
    ):
        super().__init__()
        for name, value in {"layers": layers, "high": high, "low": low}.items():
            if value < 1:
                raise UsageError(f"{type(self).__name__}: {name} must be at least 1, got {value}.")
        self.high, self.low = high, low
        if ids < 0 or (ids and not prefix):
            raise UsageError(f"ids must be 0 or more, and above 0 it needs a prefix, got ids={ids}, prefix={prefix}.")
        self.table = Table(ids, hidden) if ids else None
        self.vocabulary, self.length, self.hidden, self.prefix, self.mixer = vocabulary, length, hidden, prefix, mixer
        self.embedding = truncated_normal((vocabulary, hidden), hidden**-0.5)
        self.head = linear(hidden, vocabulary)
        self.q_weight, self.q_bias = mx.zeros((2, hidden)), mx.full((2,), -5.0)  # halting starts at almost never
        self.y_start, self.z_start = truncated_normal((hidden,), 1.0), truncated_normal((hidden,), 1.0)
        self.freeze(keys=["y_start", "z_start"], recurse=False)

    @property
    def tokens(self) -> int:
        """Places of a latent state, T: the prefix and the puzzle."""
        return self.prefix + self.length

    def start(self, count: int) -> tuple[mx.array, mx.array]:
        """The latent states (count, T, D) that every puzzle starts from, float32."""
        shape = (count, self.tokens, self.hidden)
        return mx.broadcast_to(self.y_start, shape), mx.broadcast_to(self.z_start, shape)

    def embed(self, x: mx.array, rows: mx.array | None) -> mx.array:
        """Tokens x (B, S) and puzzle embeddings (B, E) as what is put into the recursion, (B, T, D)."""
        if x.ndim != 2 or x.shape[1] != self.length:
            raise UsageError(f"{type(self).__name__} was built for puzzles of {self.length} tokens: x must be "
                             f"(B, {self.length}), got {tuple(x.shape)}.")  # fmt: skip
        # a product, since the gradient of rows picked by index adds one by one on CUDA, and most tokens are the same
        h = (x[..., None] == mx.arange(self.vocabulary)).astype(self.embedding.dtype) @ self.embedding
        if self.prefix:
            room = self.prefix * self.hidden
            front = mx.zeros((len(x), room), h.dtype) if rows is None else rows.astype(h.dtype)
            front = mx.pad(front, [(0, 0), (0, room - front.shape[1])])
            h = mx.concatenate([front.reshape(len(x), self.prefix, self.hidden), h], axis=1)
        return math.sqrt(self.hidden) * h

    def think(self, y: mx.array, z: mx.array, e: mx.array) -> tuple[mx.array, mx.array]:
        """One supervision step of the latent states, (B, T, D) each; e is what `embed` gives."""
        raise NotImplementedError

    def __call__(
        self, x: mx.array, y: mx.array, z: mx.array, rows: mx.array | None = None
    ) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """One supervision step: states y, z (B, T, D), logits (B, S, V), halting logits (B, 2) float32.

        Computes in the dtype of the weights. The states carry no gradient, neither in nor out.
        """
        e = self.embed(x, rows)
        y, z = (mx.stop_gradient(a).astype(e.dtype) for a in (y, z))
        y, z = self.think(y, z, e)
        logits = y[:, self.prefix :] @ self.head.T
        q = (y[:, 0] @ self.q_weight.T + self.q_bias).astype(mx.float32)
        return mx.stop_gradient(y), mx.stop_gradient(z), logits, q
