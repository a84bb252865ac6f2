"""The exact posterior: likelihood against the formula, a known parameter, the swap, and its published ceilings."""

import numpy as np
import pytest

from domains.eis import SWAP, default_frequencies, impedance, on_grid
from domains.eis_noise import log_likelihood, noisy
from evaluation import eis_oracle
from runtime.errors import UsageError


@pytest.fixture(scope="module")
def oracle():
    return eis_oracle.GridOracle(default_frequencies(12), "series", 0.01)


def spectra(oracle, count: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    truths = rng.integers(0, 12, (count, 5))
    z = impedance(on_grid(truths), oracle.frequencies, oracle.topology)
    return truths, noisy(z, oracle.level, rng)


def test_likelihood_is_the_formula(oracle):
    _, seen = spectra(oracle, 3)
    some = np.array([0, 77, 100_000, eis_oracle.COUNT - 1])
    model = impedance(on_grid(oracle.indices[some]), oracle.frequencies, "series")
    want = log_likelihood(seen[:, None], model, 0.01)
    np.testing.assert_allclose(oracle.log_likelihood(seen)[:, some], want, rtol=1e-9, atol=1e-6)


def test_posterior_is_one_knows_what_is_known_and_gives_twins_alike(oracle):
    truths, seen = spectra(oracle, 4)
    posterior = np.exp(oracle.log_posterior(seen))
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    twin = eis_oracle.flat(oracle.indices[:, SWAP])
    np.testing.assert_allclose(posterior, posterior[:, twin], rtol=1e-5, atol=1e-12)
    given = np.exp(oracle.log_posterior(seen, {0: truths[:, 0], 4: truths[:, 4]}))
    keep = (oracle.indices[None, :, 0] == truths[:, :1]) & (oracle.indices[None, :, 4] == truths[:, 4:])
    assert (given[~keep] == 0).all()
    want = np.where(keep, posterior, 0)
    np.testing.assert_allclose(given, want / want.sum(axis=1, keepdims=True), rtol=1e-6, atol=1e-12)


def test_no_noise_level_of_zero():
    with pytest.raises(UsageError, match="above 0, got 0"):
        eis_oracle.GridOracle(default_frequencies(5), "series", 0)
