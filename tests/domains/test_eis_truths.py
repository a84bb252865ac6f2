"""Ground truths: exact numbers, ranges, seeds, shares; noise: sizes by kind, likelihood against scipy's normal."""

import numpy as np
import pytest
from scipy.stats import norm

from domains import eis, eis_truths
from domains.eis_noise import log_likelihood, noisy
from runtime.errors import UsageError


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1001])
def test_exact_numbers_within_range_and_by_seed(count):
    found = eis_truths.ground_truths(count, seed=3)
    assert found.shape == (count, 5)
    assert (found >= eis.LOWEST * (1 - 1e-12)).all() and (found <= eis.HIGHEST * (1 + 1e-12)).all()
    np.testing.assert_array_equal(found, eis_truths.ground_truths(count, seed=3))
    assert not np.array_equal(found, eis_truths.ground_truths(count, seed=4))


def test_shares_are_exact_for_round_numbers():
    assert eis_truths.parts(100) == [40, 30, 15, 15] and sum(eis_truths.parts(33)) == 33


def test_a_latin_hypercube_and_corners_are_what_they_are_called():
    unit = eis_truths.to_unit(eis_truths.ground_truths(1000))
    near = np.minimum(unit, 1 - unit) <= eis_truths.CORNER
    assert 150 <= near.all(axis=1).sum() <= 155  # the corners, and chance's .2^5 of the others
    corners = eis_truths.corners(64, np.random.default_rng(0)) > 0.5
    assert len(np.unique(corners, axis=0)) == 32
    with pytest.raises(UsageError, match="at least 1, got 0"):
        eis_truths.ground_truths(0)


def test_hypercube_and_sequence_fill_every_stratum_once(monkeypatch):
    """Either one alone: 64 points, of each parameter one in every 64th of its logarithmic range."""
    for kind in ("latin_hypercube", "sobol"):
        monkeypatch.setattr(eis_truths, "SHARES", {**dict.fromkeys(eis_truths.SHARES, 0.0), kind: 1.0})
        strata = np.floor(eis_truths.to_unit(eis_truths.ground_truths(64, seed=5)) * 64)
        np.testing.assert_array_equal(np.sort(strata, axis=0), np.arange(64)[:, None] * np.ones(5))
    pairs = strata[:, :2] // 8  # of the sequence, the last: also one in every square of 8 by 8
    assert len(np.unique(pairs, axis=0)) == 64


def test_noise_has_its_size_and_kind():
    rng, z = np.random.default_rng(0), np.full((4000, 5), 3 - 4j, np.complex128)
    errors = {kind: noisy(z, 0.02, rng, kind) - z for kind in ("modulus", "proportional", "phase")}
    assert errors["modulus"].real.std() == pytest.approx(0.1, rel=0.02)
    assert errors["modulus"].imag.std() == pytest.approx(0.1, rel=0.02)
    assert errors["proportional"].real.std() == pytest.approx(0.06, rel=0.02)
    assert errors["proportional"].imag.std() == pytest.approx(0.08, rel=0.02)
    turned = z + errors["phase"]
    np.testing.assert_allclose(np.abs(turned), 5.0)
    assert np.angle(turned / z).std() == pytest.approx(0.02, rel=0.02)
    levels = np.array([0.0, 0.1])
    assert np.array_equal(noisy(z[:2], levels, rng)[0], z[0])
    with pytest.raises(UsageError, match="modulus, proportional, phase, got 'white'"):
        noisy(z, 0.1, rng, "white")


def test_likelihood_is_a_product_of_normals():
    rng = np.random.default_rng(1)
    model: eis.Impedance = rng.standard_normal(6) + 1j * rng.standard_normal(6)
    seen = noisy(model, 0.05, rng)
    sigma = 0.05 * np.abs(model)
    want = norm.logpdf(seen.real, model.real, sigma).sum() + norm.logpdf(seen.imag, model.imag, sigma).sum()
    assert log_likelihood(seen, model, 0.05) == pytest.approx(want)
