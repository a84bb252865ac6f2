"""Mixtures of logistic densities cut to one cell, [-.5, .5]: density and draws, exact also far out in the tails."""

import mlx.core as mx
import mlx.nn as nn


def log_density(offset: mx.array, weight: mx.array, centre: mx.array, width: mx.array) -> mx.array:
    """ln of the density at offsets (...), in nats; ln weights, centres and ln widths are (..., mixture)."""
    scale = mx.exp(width)
    z = (offset[..., None] - centre) / scale
    log_pdf = -mx.abs(z) - 2 * mx.log1p(mx.exp(-mx.abs(z))) - width
    # F(b) - F(a) = F(b) F(-a) (1 - exp(a - b)): a difference would be 0 where both are nearly 1
    inside = _log_cdf((0.5 - centre) / scale) + _log_cdf((0.5 + centre) / scale) + mx.log(-mx.expm1(-1 / scale))
    return mx.logsumexp(weight + log_pdf - inside, axis=-1)


def draw(weight: mx.array, centre: mx.array, width: mx.array, uniform: mx.array) -> mx.array:
    """One offset (...) in [-.5, .5] of each mixture, by the inverse of its distribution function.

    uniform (..., 2) in (0, 1): for the choice of a component, and for the place in it.
    """
    chosen = choose(weight, uniform[..., :1])[..., None]
    centre, scale = (mx.take_along_axis(a, chosen, axis=-1) for a in (centre, mx.exp(width)))
    ends = (mx.array([-0.5, 0.5]) - centre) / scale
    share = mx.log(mx.concatenate([1 - uniform[..., 1:], uniform[..., 1:]], axis=-1))
    # the odds of (1 - u) F(low) + u F(high); both tails keep their digits
    below = mx.logsumexp(share - mx.logaddexp(0.0, -ends), axis=-1, keepdims=True)
    above = mx.logsumexp(share - mx.logaddexp(0.0, ends), axis=-1, keepdims=True)
    return mx.clip(centre + scale * (below - above), -0.5, 0.5)[..., 0]


def choose(log_p: mx.array, uniform: mx.array) -> mx.array:
    """Which of the chances of ln log_p (..., K) uniform (..., 1) numbers fall on, (...) uint32."""
    ends = mx.cumsum(mx.exp(log_p), axis=-1)
    return (ends[..., :-1] <= uniform * ends[..., -1:]).sum(axis=-1)


def _log_cdf(z: mx.array) -> mx.array:
    return -nn.softplus(-z)
