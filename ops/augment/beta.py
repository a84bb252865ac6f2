"""Draws from the beta distribution by a fixed number of operations, so that they can be compiled."""

import mlx.core as mx

TRIES = 8  # of Marsaglia and Tsang; each is accepted with probability > .95, so that one in 10^10 draws falls short


def log_gamma_draws(alpha: float, shape: tuple[int, ...], key: mx.array) -> mx.array:
    """Logarithms of draws from Gamma(alpha, 1), float32 of a shape.

    Marsaglia and Tsang, "A simple method for generating gamma variables", ACM TOMS 26 (2000), page 363.
    Below alpha = 1 a draw from Gamma(alpha + 1) times U^(1/alpha), in logarithms, so that nothing underflows.
    """
    normal, accept, boost = mx.random.split(key, 3)
    d = (alpha + 1 if alpha < 1 else alpha) - 1 / 3
    z = mx.random.normal((TRIES, *shape), key=normal)
    v = 1 + z / (9 * d) ** 0.5
    log_v = 3 * mx.log(mx.maximum(v, 1e-6))
    u = mx.random.uniform(shape=z.shape, key=accept)
    accepted = (v > 1e-6) & (mx.log(u) < 0.5 * z * z + d * (1 - mx.exp(log_v) + log_v))
    first = mx.argmax(accepted, axis=0, keepdims=True)
    drawn = mx.log(mx.array(d)) + mx.take_along_axis(log_v, first, axis=0)[0]
    if alpha < 1:
        drawn = drawn + mx.log(mx.random.uniform(low=1e-38, high=1.0, shape=shape, key=boost)) / alpha
    return drawn


def beta_draws(alpha: float, shape: tuple[int, ...], key: mx.array) -> mx.array:
    """Draws from Beta(alpha, alpha), float32 in [0, 1] of a shape."""
    if alpha == 1:
        return mx.random.uniform(shape=shape, key=key)
    one, other = mx.random.split(key)
    return mx.sigmoid(log_gamma_draws(alpha, shape, one) - log_gamma_draws(alpha, shape, other))
