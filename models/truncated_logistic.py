"""Mixtures of logistic densities cut to one cell, [-.5, .5]: density and draws, exact also far out in the tails."""

import mlx.core as mx

from runtime.host import constant, namespace

ENDS = constant([-0.5, 0.5])


def log_density(offset: mx.array, weight: mx.array, centre: mx.array, width: mx.array) -> mx.array:
    """ln of the density at offsets (...), in nats; ln weights, centres and ln widths are (..., mixture)."""
    xp, scale = namespace(width), namespace(width).exp(width)
    z = (offset[..., None] - centre) / scale
    log_pdf = -xp.abs(z) - 2 * xp.log1p(xp.exp(-xp.abs(z))) - width
    # F(b) - F(a) = F(b) F(-a) (1 - exp(a - b)): a difference would be 0 where both are nearly 1
    inside = _log_cdf((0.5 - centre) / scale) + _log_cdf((0.5 + centre) / scale) + xp.log(-xp.expm1(-1 / scale))
    return xp.logsumexp(weight + log_pdf - inside, axis=-1)


def draw(weight: mx.array, centre: mx.array, width: mx.array, uniform: mx.array) -> mx.array:
    """One offset (...) in [-.5, .5] of each mixture, by the inverse of its distribution function.

    uniform (..., 2) in (0, 1): for the choice of a component, and for the place in it.
    """
    xp = namespace(weight)
    chosen = choose(weight, uniform[..., :1])[..., None]
    centre, scale = (xp.take_along_axis(a, chosen, axis=-1) for a in (centre, xp.exp(width)))
    ends = (ENDS[xp] - centre) / scale
    share = xp.log(xp.concatenate([1 - uniform[..., 1:], uniform[..., 1:]], axis=-1))
    # the odds of (1 - u) F(low) + u F(high); both tails keep their digits
    below = xp.logsumexp(share - xp.logaddexp(0.0, -ends), axis=-1, keepdims=True)
    above = xp.logsumexp(share - xp.logaddexp(0.0, ends), axis=-1, keepdims=True)
    return xp.clip(centre + scale * (below - above), -0.5, 0.5)[..., 0]


def choose(log_p: mx.array, uniform: mx.array) -> mx.array:
    """Which of the chances of ln log_p (..., K) uniform (..., 1) numbers fall on, (...) uint32."""
    xp = namespace(log_p)
    ends = xp.cumsum(xp.exp(log_p), axis=-1)
    return (ends[..., :-1] <= uniform * ends[..., -1:]).sum(axis=-1)


def _log_cdf(z: mx.array) -> mx.array:
    return -namespace(z).logaddexp(-z, 0.0)
