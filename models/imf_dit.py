"""The transformer of improved MeanFlow (arXiv 2512.02012), after github.com/Lyy-iiis/imeanflow: conditions as tokens.

No adaLN: tokens for the class, the guidance and the times come before the patches. RMSNorm, SwiGLU, rotary positions
(arXiv 2104.09864), normalised queries and keys, gates that start at zero, and a second head for the velocity.
"""

import mlx.core as mx
import mlx.nn as nn

from models.attention import attention
from models.checkpointing import checkpointed
from models.elementary import silu
from models.layers import ClassEmbedding, check_sample, check_times, class_embedding
from models.tokens import NumberEmbedding, check_heads, normal_linear, patched_shape, patchify, unpatchify
from runtime.errors import UsageError

EPS = 1e-6  # of every RMS norm
TOKENS = {"label": 8, "guidance": 4, "low": 2, "high": 2, "interval": 4}  # in front of the patches, in this order


def rotated(x: mx.array) -> mx.array:
    """Rotary positions: neighbouring features of x (B, heads, L, D) turn, as pairs, by place x 10000^(-2 i / D)."""
    return mx.fast.rope(x, x.shape[-1], traditional=True, base=10_000.0, scale=1.0, offset=0)


class Block(nn.Module):
    """Self-attention, then SwiGLU (arXiv 2002.05202), each after a norm and times a learned gate that starts at 0."""

    def __init__(self, hidden: int, heads: int, ratio: float):
        super().__init__()
        wide, std = int(hidden * ratio), 0.32  # of the initial weights, over the root of the fan-in
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(hidden, EPS), nn.RMSNorm(hidden, EPS)
        self.query_norm, self.key_norm = nn.RMSNorm(hidden // heads, EPS), nn.RMSNorm(hidden // heads, EPS)
        self.qkv = normal_linear(hidden, 3 * hidden, std * hidden**-0.5, bias=False)
        self.leave = normal_linear(hidden, hidden, std * hidden**-0.5, bias=False)
        self.widen = normal_linear(hidden, 2 * wide, std * hidden**-0.5, bias=False)
        self.narrow = normal_linear(wide, hidden, std * wide**-0.5, bias=False)
        self.gate1, self.gate2 = mx.zeros(hidden), mx.zeros(hidden)

    def attend(self, x: mx.array) -> mx.array:
        """Self-attention over the tokens, (B, L, D) -> (B, L, D)."""
        count, length, hidden = x.shape
        qkv = self.qkv(x).reshape(count, length, 3, self.heads, hidden // self.heads)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each (B, heads, L, D / heads)
        q, k = rotated(self.query_norm(q)), rotated(self.key_norm(k))
        h = attention(q, k, v, scale=(hidden // self.heads) ** -0.5)
        return self.leave(h.transpose(0, 2, 1, 3).reshape(x.shape))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, L, D) -> (B, L, D)."""
        x = x + self.gate1 * self.attend(self.norm1(x))
        gate, value = mx.split(self.widen(self.norm2(x)), 2, axis=-1)
        return x + self.gate2 * self.narrow(silu(gate) * value)


class Head(nn.Module):
    """The last blocks, a norm and a linear layer that starts at zero: (B, L, D) -> (B, L - skip, outputs)."""

    def __init__(self, hidden: int, heads: int, ratio: float, depth: int, outputs: int, checkpoint: bool):
        super().__init__()
        self.checkpoint = checkpoint
        self.blocks = [Block(hidden, heads, ratio) for _ in range(depth)]
        self.norm = nn.RMSNorm(hidden, EPS)
        self.leave = normal_linear(hidden, outputs, 0)

    def __call__(self, x: mx.array, skip: int) -> mx.array:
        """x (B, L, D); the first `skip` tokens are conditions, which nothing comes out of."""
        for block in self.blocks:
            x = checkpointed(block, x) if self.checkpoint else block(x)
        return self.leave(self.norm(x[:, skip:]))


class IMFDiT(nn.Module):
    """Transformer over condition tokens and patches with two heads, u and v; the defaults are iMF-B/2.

    shape: [height, width, channels]. patch: edge of a patch in pixels, which divides the image. depth: blocks on the
    way to u, of which the last `head_depth` are its head; the head of v has as many of its own. ratio: of SwiGLU's
    width to `hidden`. classes: 0, or their number (one more is added for "no class").
    Published sizes as depth / hidden / heads: B 12/768/12, M 24/768/12, L 32/1024/16, XL 48/1024/16, head_depth 8.
    checkpoint: each block's insides are computed anew in the backward pass, not kept. Of the times it sees the interval
    t - r alone. Raises UsageError for sizes that don't divide.
    """

    independent_rows = True

    def __init__(
        self,
        shape: tuple | list,
        patch: int = 2,
        hidden: int = 768,
        depth: int = 12,
        heads: int = 12,
        head_depth: int = 8,
        ratio: float = 8 / 3,
        classes: int = 0,
        checkpoint: bool = False,
    ):
        super().__init__()
        self.checkpoint = checkpoint
        self.shape, self.patch = patched_shape(self, shape, patch), patch
        check_heads(self, hidden, heads, multiple=2)
        if not 0 <= head_depth <= depth:
            raise UsageError(f"IMFDiT: head_depth must lie between 0 and depth={depth}, got {head_depth}.")
        std = hidden**-0.5
        values = patch * patch * self.shape[2]
        self.enter = normal_linear(values, hidden, (2 / (values + hidden)) ** 0.5)
        for name in ("guidance", "low", "high", "interval"):
            self[f"{name}_embedding"] = NumberEmbedding(hidden, std=(NumberEmbedding.FEATURES**-0.5, std))
        self.label = class_embedding(classes, hidden)
        if isinstance(self.label, ClassEmbedding):
            self.label.weight = mx.random.normal((classes + 1, hidden)) * std
        self.tokens = {name: mx.random.normal((count, hidden)) * std for name, count in TOKENS.items()}
        self.blocks = [Block(hidden, heads, ratio) for _ in range(depth - head_depth)]
        self.u_head = Head(hidden, heads, ratio, head_depth, values, checkpoint)
        self.v_head = Head(hidden, heads, ratio, head_depth, values, checkpoint)

    def conditions(self, times: mx.array, label, guidance, interval) -> mx.array:
        """The 20 tokens in front of the patches, (B, 20, D); [lo, hi] enters as [1-hi, 1-lo], as with noise at t=1."""
        count = times.shape[0]
        guidance = mx.ones(count) if guidance is None else guidance
        low, high = (mx.zeros(count), mx.ones(count)) if interval is None else (1 - interval[:, 1], 1 - interval[:, 0])
        numbers = {"guidance": 1 - 1 / guidance, "low": low, "high": high, "interval": times[:, 1] - times[:, 0]}
        labelled = self.label(mx.broadcast_to(self.tokens["label"], (count, *self.tokens["label"].shape)), label)
        others = [self.tokens[name] + self[f"{name}_embedding"](n)[:, None, :] for name, n in numbers.items()]
        return mx.concatenate([labelled, *others], axis=1)

    def __call__(
        self, x: mx.array, times=None, key=None, label=None, guidance=None, interval=None, velocity_head: bool = False
    ):
        """The average velocity u (B, H, W, C) from r to t, or (u, v) with velocity_head; without it v is not computed.

        x (B, H, W, C), times (B, 2), label (B,) or None; nothing here is random, key is not used. guidance (B,): the
        scale w >= 1, None for 1. interval (B, 2): from and to which start time r guidance acts, None for all of [0, 1].
        """
        check_sample(self, x, self.shape)
        times = check_times(x, times)
        check_conditions(x.shape[0], guidance, interval)
        patches = self.enter(patchify(x, self.patch).astype(self.enter.weight.dtype))
        h = mx.concatenate([self.conditions(times, label, guidance, interval), patches], axis=1)
        for block in self.blocks:
            h = checkpointed(block, h) if self.checkpoint else block(h)
        skip = sum(TOKENS.values())
        u = unpatchify(self.u_head(h, skip), self.patch, self.shape)
        return (u, unpatchify(self.v_head(h, skip), self.patch, self.shape)) if velocity_head else u


def check_conditions(count: int, guidance: mx.array | None, interval: mx.array | None) -> None:
    """Raises UsageError unless guidance is (B,) and interval is (B, 2), where they are given."""
    for name, given, needed in (("guidance", guidance, (count,)), ("interval", interval, (count, 2))):
        if given is not None and tuple(given.shape) != needed:
            raise UsageError(f"{name} must have shape {needed}, a row per row of x; got {tuple(given.shape)}.")
