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


def draw(weight: mx.array, centre: mx.array, width: mx.array, key: mx.array) -> mx.array:
    """One offset (...) in [-.5, .5] of each mixture, by the inverse of its distribution function."""
    choose, place = mx.random.split(key)
    chosen = mx.random.categorical(weight, key=choose)[..., None]
    centre, width = (mx.take_along_axis(a, chosen, axis=-1)[..., 0] for a in (centre, width))
    scale = mx.exp(width)
    low, high = (-0.5 - centre) / scale, (0.5 - centre) / scale
    uniform = mx.random.uniform(1e-7, 1 - 1e-7, centre.shape, key=place)
    less, more = mx.log1p(-uniform), mx.log(uniform)
    # the odds of (1 - u) F(low) + u F(high); both tails keep their digits
    below = mx.logaddexp(less + _log_cdf(low), more + _log_cdf(high))
    above = mx.logaddexp(less + _log_cdf(-low), more + _log_cdf(-high))
    return mx.clip(centre + scale * (below - above), -0.5, 0.5)


def _log_cdf(z: mx.array) -> mx.array:
    return -nn.softplus(-z)
