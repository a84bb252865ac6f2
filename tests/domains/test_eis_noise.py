"""Noise: sizes by kind, likelihoods against scipy's densities and as densities, the axes of small errors."""

import numpy as np
import pytest
from scipy.stats import norm

from domains.eis import Impedance
from domains.eis_noise import KINDS, STEADY, axes, log_likelihood, noisy, white_squares
from runtime.errors import UsageError


def test_noise_has_its_size_and_kind():
    rng, z = np.random.default_rng(0), np.full((4000, 5), 3 - 4j, np.complex128)
    seen = {kind: noisy(z, 0.02, rng, kind) for kind in KINDS}
    errors = {kind: one - z for kind, one in seen.items()}
    assert errors["modulus"].real.std() == pytest.approx(0.1, rel=0.02)
    assert errors["modulus"].imag.std() == pytest.approx(0.1, rel=0.02)
    assert errors["proportional"].real.std() == pytest.approx(0.06, rel=0.02)
    assert errors["proportional"].imag.std() == pytest.approx(0.08, rel=0.02)
    off = np.log(seen["phase"] / z)
    assert off.imag.std() == pytest.approx(0.02, rel=0.02)
    assert off.real.std() == pytest.approx(0.02 * STEADY, rel=0.02)
    levels = np.array([0.0, 0.1])
    assert all(np.array_equal(noisy(z[:2], levels, rng, kind)[0], z[0]) for kind in KINDS)
    for wrong in (lambda: noisy(z, 0.1, rng, "white"), lambda: log_likelihood(z, z, 0.1, "white")):
        with pytest.raises(UsageError, match="modulus, proportional, phase, got 'white'"):
            wrong()


@pytest.mark.parametrize("kind", KINDS)
def test_likelihood_is_a_product_of_scipys_normals(kind):
    rng = np.random.default_rng(1)
    model: Impedance = rng.standard_normal(6) + 1j * rng.standard_normal(6)
    seen = noisy(model, 0.05, rng, kind)
    if kind == "phase":
        angle = norm.logpdf(np.angle(seen / model), 0, 0.05)
        radius = norm.logpdf(np.log(np.abs(seen)), np.log(np.abs(model)), 0.05 * STEADY) - np.log(np.abs(seen))
        want = (angle - np.log(np.abs(seen)) + radius).sum()  # per ohm along the circle, per ohm outwards
    else:
        sizes = np.abs([model, model]) if kind == "modulus" else np.abs([model.real, model.imag])
        want = norm.logpdf([seen.real, seen.imag], [model.real, model.imag], 0.05 * sizes).sum()
    assert log_likelihood(seen, model, 0.05, kind) == pytest.approx(want)


@pytest.mark.parametrize("kind", KINDS)
def test_likelihoods_are_densities_over_the_same_plane(kind):
    """Else kinds could not be compared by them."""
    model = np.array([30 - 40j])
    side = np.linspace(-25, 25, 1001)
    z = model + side[:, None, None] + 1j * side[:, None]
    total = np.exp(log_likelihood(z, model, 0.08, kind)).sum() * (side[1] - side[0]) ** 2
    assert total == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_in_its_axes_the_noise_has_its_level_in_both_and_no_correlation(kind):
    rng, z = np.random.default_rng(2), np.full(20_000, 300 - 50j)
    seen = noisy(z, 0.003, rng, kind)
    turn, along, across = axes(z, kind)
    off = turn * (seen - z)
    parts = np.stack([off.real * along, off.imag * across])
    np.testing.assert_allclose(np.cov(parts) / 0.003**2, np.eye(2), atol=0.05)
    np.testing.assert_allclose(np.abs(turn), 1, rtol=1e-12)
    assert white_squares(seen, z, kind) == pytest.approx(0.003**2, rel=0.05)
