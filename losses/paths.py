"""Interpolants x_t = alpha(t) x1 + sigma(t) x0 between noise x0 (t=0) and data x1 (t=1), and samplers of t.

Velocity is d x_t / d t = alpha'(t) x1 + sigma'(t) x0 (arXiv 2210.02747, 2303.08797); a model may predict it, the data
x1 ("x") or the noise x0 ("eps"), and `convert` goes from any of the three to any other.
"""

import math
from typing import Literal

import mlx.core as mx

from runtime.errors import UsageError

Prediction = Literal["velocity", "x", "eps"]
FLOOR = 1e-3  # smallest divisor of a conversion, which is singular where alpha, sigma or their Wronskian vanish


def beside(t: mx.array, x: mx.array) -> mx.array:
    """t (B,) or 0-d, shaped to multiply x (B, ...) row by row."""
    return t if t.ndim == 0 else t.reshape(-1, *[1] * (x.ndim - 1))


def floored(value: mx.array) -> mx.array:
    """The value pushed away from zero to at least FLOOR, its sign kept (zero counts as positive)."""
    return mx.where(value < 0, mx.minimum(value, -FLOOR), mx.maximum(value, FLOOR))


class Path:
    """An interpolant: subclasses give `coefficients(t)`, the rest follows."""

    def coefficients(self, t: mx.array) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """alpha(t), sigma(t), alpha'(t), sigma'(t), each of t's shape."""
        raise NotImplementedError

    def point(self, x0: mx.array, x1: mx.array, t: mx.array) -> mx.array:
        """x_t (B, ...) from noise x0 and data x1 (B, ...) at t (B,) or 0-d."""
        alpha, sigma, _, _ = self.coefficients(beside(t, x1))
        return alpha * x1 + sigma * x0

    def velocity(self, x0: mx.array, x1: mx.array, t: mx.array) -> mx.array:
        """d x_t / d t (B, ...) at t (B,) or 0-d."""
        _, _, d_alpha, d_sigma = self.coefficients(beside(t, x1))
        return d_alpha * x1 + d_sigma * x0

    def convert(self, value: mx.array, given: Prediction, wanted: Prediction, x_t: mx.array, t: mx.array) -> mx.array:
        """The `wanted` quantity from the `given` one, at the state x_t (B, ...) and time t (B,) or 0-d.

        Divisors below 1e-3 in size are raised to it: "x" is singular at t=1 (sigma = 0), "eps" at t=0 (alpha = 0).
        """
        if given == wanted:
            return value
        alpha, sigma, d_alpha, d_sigma = self.coefficients(beside(t, x_t))
        if given == "x":
            x1, x0 = value, (x_t - alpha * value) / floored(sigma)
        elif given == "eps":
            x1, x0 = (x_t - sigma * value) / floored(alpha), value
        else:  # two linear equations in x1 and x0: x_t and the velocity
            wronskian = floored(sigma * d_alpha - alpha * d_sigma)
            x1, x0 = (sigma * value - d_sigma * x_t) / wronskian, (d_alpha * x_t - alpha * value) / wronskian
        return {"x": x1, "eps": x0, "velocity": d_alpha * x1 + d_sigma * x0}[wanted]


class CondOT(Path):
    """The straight line x_t = t x1 + (1 - t) x0 (arXiv 2210.02747, 2209.03003)."""

    def coefficients(self, t):
        """alpha = t, sigma = 1 - t."""
        return t, 1 - t, mx.ones_like(t), -mx.ones_like(t)


class Cosine(Path):
    """Variance-preserving trigonometric path: alpha = sin(pi t / 2), sigma = cos(pi t / 2) (arXiv 2303.08797)."""

    def coefficients(self, t):
        """alpha and sigma on the unit circle."""
        half = math.pi / 2
        alpha, sigma = mx.sin(half * t), mx.cos(half * t)
        return alpha, sigma, half * sigma, -half * alpha


class Polynomial(Path):
    """alpha = t^n, sigma = 1 - t^n; n = 1 is CondOT."""

    def __init__(self, n: float = 2.0):
        if n < 1:
            raise UsageError(f"Polynomial path: n must be at least 1 for a finite velocity at t=0, got {n}.")
        self.n = n

    def coefficients(self, t):
        """Powers of t."""
        alpha = t**self.n
        d_alpha = self.n * t ** (self.n - 1)
        return alpha, 1 - alpha, d_alpha, -d_alpha


class VP(Path):
    """The variance-preserving diffusion (arXiv 2011.13456, appendix B) with its time reversed.

    alpha = exp(-s^2 (b1 - b0) / 4 - s b0 / 2) at s = 1 - t, sigma = sqrt(1 - alpha^2). sigma' is infinite at s = 0,
    so s is kept at or above 1e-5. At t=0 alpha is .0066 with the default rates, not zero.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0):
        if not 0 < beta_min <= beta_max:
            raise UsageError(f"VP path: 0 < beta_min <= beta_max is needed, got {beta_min} and {beta_max}.")
        self.beta_min, self.beta_max = beta_min, beta_max

    def coefficients(self, t):
        """alpha^2 + sigma^2 = 1."""
        s = mx.maximum(1 - t, 1e-5)
        log_alpha = -0.25 * s * s * (self.beta_max - self.beta_min) - 0.5 * s * self.beta_min
        alpha = mx.exp(log_alpha)
        sigma = mx.sqrt(-mx.expm1(2 * log_alpha))
        d_alpha = alpha * 0.5 * (s * (self.beta_max - self.beta_min) + self.beta_min)
        return alpha, sigma, d_alpha, -alpha * d_alpha / sigma


class Uniform:
    """t uniform on [0, 1)."""

    def __call__(self, count: int, key: mx.array) -> mx.array:
        """(count,) float32."""
        return mx.random.uniform(shape=(count,), key=key)


class LogitNormal:
    """t = sigmoid(mu + sigma n), n standard normal (arXiv 2403.03206); positive mu favours data (t=1).

    Papers with noise at t=1 have the opposite sign of mu.
    """

    def __init__(self, mu: float = 0.0, sigma: float = 1.0):
        if sigma <= 0:
            raise UsageError(f"LogitNormal: sigma must be positive, got {sigma}.")
        self.mu, self.sigma = mu, sigma

    def __call__(self, count: int, key: mx.array) -> mx.array:
        """(count,) float32."""
        return mx.sigmoid(self.mu + self.sigma * mx.random.normal((count,), key=key))


class Stratified:
    """One uniform draw in each of `count` equal strata: uniform on [0, 1) with a less noisy batch average."""

    def __call__(self, count: int, key: mx.array) -> mx.array:
        """(count,) float32, in random order, so that a row's place in the batch tells nothing."""
        place, order = mx.random.split(key)
        t = (mx.arange(count) + mx.random.uniform(shape=(count,), key=place)) / count
        return mx.random.permutation(mx.minimum(t, 1 - 2**-24), key=order)
