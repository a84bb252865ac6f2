"""Attention with a choice of derivatives: MLX's own, or a jvp with fewer passes over arrays of T x T.

Compiled on a CPU, T = 512, such arrays at the peak: jvp 3.8 against MLX's 3.3, gradient of the jvp 8.8 against 12.5.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import cast

import mlx.core as mx

from runtime.calls import watching
from runtime.custom import custom_function

Attention = Callable[[mx.array, mx.array, mx.array], mx.array]

# Read while tracing. "fused": MLX's kernel with the jvp below; "plain": MLX's kernel and derivatives; "auto": on a CPU
# in float32 the operations written out, else plain.
mode: str = "auto"


def attention(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None = None) -> mx.array:
    """softmax(scale q k^T) v over the tokens: q (B, heads, T, D), k and v (B, heads, T', D) -> (B, heads, T, D).

    mask: bool, broadcast to (B, heads, T, T'), true where a token may look.
    """
    if _recorders:
        weights = mx.softmax(scored(q, k, scale, mask).astype(mx.float32), axis=-1)
        for recorder in _recorders:
            recorder.append(weights)
    if mode == "fused" and mask is None:
        return fused(scale)(q, k, v)
    here = q.dtype == mx.float32 and mx.default_device() == mx.Device(mx.cpu)
    if mode == "auto" and here and not watching():  # who watches calls knows MLX's as one
        return by_operations(q, k, v, scale, mask)
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)


def scored(q: mx.array, k: mx.array, scale: float, mask: mx.array | None) -> mx.array:
    """scale q k^T of q (B, heads, T, D) and k (B, heads, T', D), (B, heads, T, T'), the least number where masked."""
    scores = (scale * q) @ k.swapaxes(-1, -2)
    return scores if mask is None else mx.where(mask, scores, mx.finfo(scores.dtype).min)


def by_operations(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None) -> mx.array:
    """`attention` whose exponentials mx.compile fuses; MLX's softmax takes 25 ns a number on a CPU, this a seventh.

    q (B, heads, T, D), k and v (B, heads, T', D), mask as there -> (B, heads, T, D).
    """
    scores = scored(q, k, scale, mask)
    weights = mx.exp(scores - mx.stop_gradient(scores.max(axis=-1, keepdims=True)))
    return (weights / weights.sum(axis=-1, keepdims=True)) @ v


_recorders: list[list[mx.array]] = []


@contextmanager
def attention_weights() -> Iterator[list[mx.array]]:
    """Within: every call of `attention` adds its weights (B, heads, T, T') float32 to the list, in order.

    For looking at a model outside of mx.compile: the kernels that give the result never hold them.
    """
    found: list[mx.array] = []
    _recorders.append(found)
    try:
        yield found
    finally:
        _recorders[:] = [recorder for recorder in _recorders if recorder is not found]


@lru_cache
def fused(scale: float) -> Attention:
    """`attention` with a jvp of its own, which can be differentiated; a gradient can't be, again, in bf16 on CUDA."""

    def plain(q, k, v):
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale)

    @custom_function
    def attend(q, k, v):
        # without stop_gradient MLX would differentiate this body instead
        return plain(*map(mx.stop_gradient, (q, k, v)))

    typed = cast(Attention, attend)

    @attend.jvp
    def _(primals, tangents):
        q, k, v = primals
        dq, dk, dv = tangents
        p = mx.softmax((scale * q) @ k.swapaxes(-1, -2), axis=-1, precise=True)
        pairs = [(a, b) for a, b in ((dq, k), (q, dk)) if a is not None and b is not None]
        if not pairs:
            return p @ dv
        left, right = (mx.concatenate(list(side), axis=-1) for side in zip(*pairs, strict=True))
        w = p * (scale * (left @ right.swapaxes(-1, -2)))
        # dO = sum_j P_j (dS_j - sum_i P_i dS_i) v_j + P_j dv_j = W v - rowsum(W) O + P dv, where W = P dS
        through_p = p @ (v if dv is None else mx.concatenate([v, dv], axis=-1))
        moved = w @ v - w.sum(axis=-1, keepdims=True) * through_p[..., : v.shape[-1]]
        return moved if dv is None else moved + through_p[..., v.shape[-1] :]

    @attend.vjp
    def _(primals, cotangent, _output):
        return mx.vjp(plain, list(primals), [cotangent])[1]

    # without a rule vmap would take the body with its stop_gradient: gradients of zero, and no error
    @attend.vmap
    def _(inputs, axes):
        count = next(v.shape[axis] for v, axis in zip(inputs, axes, strict=True) if axis is not None)
        rows = [
            mx.broadcast_to(v, (count, *v.shape)) if axis is None else mx.moveaxis(v, axis, 0)
            for v, axis in zip(inputs, axes, strict=True)
        ]
        return mx.unflatten(typed(*(v.flatten(0, 1) for v in rows)), 0, (count, -1)), 0

    return typed
