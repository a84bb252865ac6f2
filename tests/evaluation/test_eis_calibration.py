"""Calibration against closed forms: exact Gaussian posteriors pass, too narrow ones fail by the known amount."""

import numpy as np
import pytest
from scipy import stats

from evaluation import eis_calibration as calibration


def gaussian(width: float, rows: int = 4000, draws: int = 999, seed: int = 0):
    """Truths ~ N(0, 1) seen with unit noise: the posterior is N(y / 2, 1/2); samples have `width` times its std."""
    rng = np.random.default_rng(seed)
    truths = rng.standard_normal((rows, 2))
    seen = truths + rng.standard_normal((rows, 2))
    noise = rng.standard_normal((rows, draws, 2))
    return seen[:, None] / 2 + width * np.sqrt(0.5) * noise, truths


def test_calibration_error_of_honest_and_of_overconfident_probabilities():
    rng = np.random.default_rng(0)
    chance = rng.random(200_000)
    right = rng.random(200_000) < chance
    assert calibration.calibration_error(chance, right) < 0.005
    assert calibration.calibration_error(chance, chance) == 0
    # says (1 + p) / 2 where p is right: off by the mean of (1 - p) / 2
    assert calibration.calibration_error((1 + chance) / 2, right) == pytest.approx(0.25, abs=0.005)
    # two rows in two bins, by hand: |.9 - 0| / 2 + |.6 - 1| / 2, whatever their order
    assert calibration.calibration_error(np.array([0.9, 0.6]), np.array([0, 1]), bins=2) == pytest.approx(0.65)
    assert calibration.calibration_error(np.array([0.9, 0.6]), np.array([0, 1]), bins=1) == pytest.approx(0.25)
    assert calibration.calibration_error(np.array([0.9, 0.6, 1.0]), np.array([1, 1, 1])) == pytest.approx(0.5 / 3)


def test_the_floor_is_what_chance_gives():
    """One bin of n rows stated at 1/2: the mean of |binomial mean - 1/2|, sqrt(1 / (2 pi n)) for many rows."""
    found = calibration.calibration_floor(np.full(1500, 0.5), np.random.default_rng(0), bins=15, draws=400)
    assert found == pytest.approx(np.sqrt(1 / (2 * np.pi * 100)), rel=0.05)
    assert calibration.calibration_floor(np.ones(100), np.random.default_rng(0)) == 0


@pytest.mark.parametrize("width", [1.0, 0.5, 2.0])
def test_coverage_of_a_gaussian_posterior(width):
    samples, truths = gaussian(width)
    for level in (0.5, 0.9):
        want = 2 * stats.norm.cdf(width * stats.norm.ppf(0.5 + level / 2)) - 1
        np.testing.assert_allclose(calibration.coverage(samples, truths, level), want, atol=0.025)


def test_ranks_are_uniform_only_for_the_exact_posterior():
    exact = calibration.rank_histogram(calibration.ranks(*gaussian(1.0)))
    assert exact.shape == (20, 2) and (exact.sum(axis=0) == 4000).all()
    statistic, chance = calibration.chi_square(exact)
    assert (chance > 0.01).all()
    for column in (0, 1):
        want = stats.chisquare(exact[:, column])
        np.testing.assert_allclose([statistic[column], chance[column]], want, rtol=1e-12)
    narrow = calibration.rank_histogram(calibration.ranks(*gaussian(0.7)))
    assert (calibration.chi_square(narrow)[1] < 1e-10).all()
    assert narrow[[0, -1]].min() > 1.3 * 200  # truths lie outside too often


def test_weights_turn_a_wide_proposal_into_the_posterior():
    samples, truths = gaussian(1.5, rows=2000)
    centre = samples.mean(axis=1, keepdims=True)
    own, wide = (stats.norm.logpdf(samples, centre, width * np.sqrt(0.5)) for width in (1.0, 1.5))
    first, weights = samples[..., :1], np.exp(own - wide)[..., 0]
    np.testing.assert_allclose(calibration.coverage(first, truths[:, :1], 0.9, weights), 0.9, atol=0.025)
    assert calibration.coverage(first, truths[:, :1], 0.9)[0] > 0.97
    histogram = calibration.rank_histogram(calibration.ranks(first, truths[:, :1], weights))
    assert calibration.chi_square(histogram)[1][0] > 0.01


def test_ranks_by_hand():
    samples, truths = np.array([[3.0, 1.0, 2.0, 4.0]]), np.array([2.5])
    assert calibration.ranks(samples, truths)[0] == 0.5 and calibration.ranks(samples, truths + 1)[0] == 0.75
    assert calibration.ranks(samples, truths, np.array([[1.0, 1.0, 2.0, 4.0]]))[0] == 3 / 8
    np.testing.assert_array_equal(calibration.rank_histogram(np.array([0.0, 0.24, 0.25, 1.0]), bins=4), [2, 1, 0, 1])


def test_weighted_quantiles_by_hand():
    samples = np.array([[3.0, 1.0, 2.0, 4.0]])
    weights = np.array([[1.0, 1.0, 0.0, 2.0]])
    found = calibration.quantiles(samples, np.array([0.0, 0.25, 0.4, 0.5, 0.51, 1.0]), weights)
    np.testing.assert_array_equal(found[:, 0], [1, 1, 3, 3, 4, 4])
    equal = calibration.quantiles(samples, np.array([0.5]), np.ones((1, 4)))
    np.testing.assert_array_equal(equal, [[2.0]])


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("spread", [None, 0.3])
def test_the_likeliest_group_is_about_as_likely_as_is_said_though_it_was_chosen_for_its_share(spread, copies):
    """The plain share of the largest of 60 is .03 too large, of chances from a Dirichlet distribution .01."""
    rng = np.random.default_rng(0)
    gap, plain = [], []
    for _ in range(400):
        chances = np.full(60, 1 / 60) if spread is None else rng.dirichlet(np.full(60, spread))
        drawn = rng.choice(60, 200, p=chances)
        origin = np.repeat(np.arange(200), copies)
        best, stated = calibration.likeliest(drawn[origin], np.full(len(origin), 0.5), 10, origin)
        assert (np.diff(stated) <= 1e-12).all() and best[0] == np.bincount(drawn, minlength=60).argmax()
        gap.append(stated[0] - chances[best[0]])
        plain.append((drawn == best[0]).mean() - chances[best[0]])
    assert np.mean(plain) > 0.009 and abs(np.mean(gap)) < 0.55 * np.mean(plain)
    assert np.square(gap).mean() < np.square(plain).mean()


def test_shares_add_up_and_few_draws_have_their_plain_ones():
    rng = np.random.default_rng(0)
    group, weights = rng.integers(0, 7, 300), rng.random(300)
    best, stated = calibration.likeliest(group, weights, 10)
    assert sorted(best) == list(range(7)) and stated.sum() == pytest.approx(1)
    best, stated = calibration.likeliest(np.array([0, 1, 1, 2]), np.array([1.0, 2, 3, 2]), 2)
    np.testing.assert_allclose(stated, [5 / 8, 2 / 8])
    np.testing.assert_array_equal(best, [1, 2])
    assert calibration.likeliest(np.zeros(200, int), np.ones(200), 3)[1] == pytest.approx([1.0])
