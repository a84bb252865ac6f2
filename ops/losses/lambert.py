"""The principal branch of Lambert's W, the inverse of w e^w."""

import math

import mlx.core as mx

INVERSE_E = 0.36787942  # 1/e as a float32, and what it lacks
REST = math.exp(-1) - 0.367879420518875122
SERIES = (-1.0, 1.0, -1 / 3, 11 / 72, -43 / 540, 769 / 17280, -221 / 8505, 680863 / 43545600)
NEAR = 0.3  # of p: the series' error is about p^8 / 100


def lambertw(z: mx.array) -> mx.array:
    """W(z), z >= -1/e (smaller ones count as -1/e), float32, z's shape; no gradient passes through.

    Near the branch point the series in p = sqrt(2 (1 + e z)), elsewhere four steps of Halley's method from Winitzki's
    guess (Corless et al., On the Lambert W function, 1996, eq. 4.22 and 5.9).
    """
    z = mx.stop_gradient(z.astype(mx.float32))
    p = mx.sqrt(mx.maximum(2 * math.e * ((z + INVERSE_E) + REST), 0))
    series = mx.zeros_like(p)
    for coefficient in reversed(SERIES):
        series = series * p + coefficient
    far = mx.where(p < NEAR, 0.0, z)
    logarithm = mx.log1p(far)
    w = logarithm * (1 - mx.log1p(logarithm) / (2 + logarithm))
    for _ in range(4):  # on w - z e^-w, which doesn't overflow
        t = far * mx.exp(-w)
        w = w - (w - t) / (1 + t + (w - t) * t / (2 * (1 + t)))
    return mx.stop_gradient(mx.where(p < NEAR, series, w))
