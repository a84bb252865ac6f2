"""Truncated logistic mixtures: a density that integrates to one wherever its centre lies, and draws that follow it."""

import mlx.core as mx
import numpy as np
import pytest

from models.truncated_logistic import draw, log_density


def mixtures() -> list[mx.array]:
    rng = np.random.default_rng(0)
    weight, centre, width = (mx.array(rng.standard_normal((5, 1, 3)).astype(np.float32)) for _ in range(3))
    return [weight - mx.logsumexp(weight, axis=-1, keepdims=True), 0.3 * centre, width - 2]


def integral(offsets: np.ndarray, *parts: mx.array) -> np.ndarray:
    density = np.exp(np.array(log_density(mx.array(offsets[None]), *parts), np.float64))
    return np.trapezoid(density, offsets, axis=1)


def test_a_mixture_is_a_density_on_the_cell():
    np.testing.assert_allclose(integral(np.linspace(-0.5, 0.5, 20_001), *mixtures()), 1, rtol=1e-4)


@pytest.mark.parametrize("centre", [-0.6, -0.5, 0.0, 0.6])
@pytest.mark.parametrize("width", [-6.0, -4.0, 0.0, 3.0])
def test_centres_beyond_the_cell_leave_a_density_too(centre, width):
    """A difference of distribution functions would be 0 in float32 where both are nearly 1, the density 1e12."""
    offsets = np.linspace(-0.5, 0.5, 400_001)
    one = mx.zeros((1, 1, 1))
    np.testing.assert_allclose(integral(offsets, one, one + centre, one + width), 1, rtol=1e-3)


@pytest.mark.parametrize("centre, width", [(-0.6, -6.0), (0.6, -6.0), (0.1, -2.0), (-0.3, 0.5)])
def test_draws_follow_the_distribution_function(centre, width):
    one = mx.zeros((20_000, 1))
    uniform = mx.random.uniform(0, 1, (20_000, 2), key=mx.random.key(3))
    found = np.sort(np.array(draw(one, one + centre, one + width, uniform), np.float64))
    z = (np.array([-0.5, 0.5]) - centre) / np.exp(width)

    def cdf(t):  # with the nearer tail's digits
        return 1 / (1 + np.exp(-t)) if centre > 0 else -1 / (1 + np.exp(t))

    want = (cdf((found - centre) / np.exp(width)) - cdf(z[0])) / (cdf(z[1]) - cdf(z[0]))
    assert np.abs(want - (np.arange(20_000) + 0.5) / 20_000).max() < 1.63 / np.sqrt(20_000)  # Kolmogorov, 1%
    assert np.abs(found).max() <= 0.5


def test_draws_choose_components_by_weight():
    uniform = mx.random.uniform(0, 1, (20_000, 2), key=mx.random.key(0))
    weight = mx.broadcast_to(mx.log(mx.array([0.2, 0.8])), (20_000, 2))
    centre = mx.broadcast_to(mx.array([-0.25, 0.25]), (20_000, 2))
    found = draw(weight, centre, mx.full((20_000, 2), -5.0), uniform)
    assert (found > 0).mean().item() == pytest.approx(0.8, abs=0.015)
