"""Labels through a series: crossing time constants, crossing membranes, gaps, noise, and all 2^T ways tried."""

from itertools import product

import numpy as np
import pytest

from domains import eis
from domains.eis_series import WHOLE, stable_labels


def series(count: int, ends: tuple, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Circuits (count, 5) on a straight line in ln p from one end to the other, with noise in ln p."""
    share = np.linspace(0, 1, count)[:, None]
    q = (1 - share) * np.log(ends[0]) + share * np.log(ends[1])
    return np.exp(q + noise * np.random.default_rng(seed).standard_normal(q.shape))


def shuffled(parameters: np.ndarray, seed: int = 1) -> np.ndarray:
    turned = np.random.default_rng(seed).random(len(parameters)) < 0.5
    return np.where(turned[:, None], parameters[:, eis.SWAP], parameters)


TIMES = ([500.0, 3000.0, 2000.0, 1e-6, 3e-6], [500.0, 3000.0, 2000.0, 5e-6, 2e-6])  # Ra Ca passes Rb Cb, Ra > Rb
ALL = ([500.0, 1000.0, 4000.0, 1e-6, 8e-6], [500.0, 4000.0, 1200.0, 9e-6, 1e-6])  # R and C both cross, nearly at once


@pytest.mark.parametrize("ends, noise", [(TIMES, 0.05), (ALL, 0.01)])
def test_branches_go_through_each_other(ends, noise):
    truth = series(25, ends, noise)
    taus = truth[:, 1] * truth[:, 3] - truth[:, 2] * truth[:, 4]
    assert taus[0] < 0 < taus[-1]
    given = shuffled(truth)
    found, swapped = stable_labels(given)
    np.testing.assert_array_equal(found, truth)
    np.testing.assert_array_equal(swapped, (given != truth).any(axis=1))
    np.testing.assert_array_equal(stable_labels(eis.canonical(truth))[0], truth)


def test_canonical_order_alone_would_swap_them():
    truth = series(25, TIMES)
    assert (eis.canonical(truth) != truth).any()


def test_the_first_row_is_canonical_whatever_is_given():
    truth = series(9, TIMES)
    for given in (truth, truth[:, eis.SWAP], shuffled(truth, 5)):
        np.testing.assert_array_equal(stable_labels(given)[0], truth)


def cost(q: np.ndarray, variance: np.ndarray) -> float:
    steps = np.sum((q[1:] - q[:-1]) ** 2 / (variance[1:] + variance[:-1]))
    bends = np.sum((q[2:] - 2 * q[1:-1] + q[:-2]) ** 2 / (variance[2:] + 4 * variance[1:-1] + variance[:-2]))
    return float(WHOLE * steps + bends)


@pytest.mark.parametrize("seed", range(6))
def test_no_other_of_all_ways_to_name_them_is_smoother(seed):
    rng = np.random.default_rng(seed)
    parameters = eis.LOWEST * (eis.HIGHEST / eis.LOWEST) ** rng.random((7, 5))
    deviations = rng.uniform(0.01, 1, (7, 5))
    _, swapped = stable_labels(parameters, deviations)
    costs = {}
    for ways in product([False, True], repeat=7):
        turned = np.array(ways)[:, None]
        costs[ways] = cost(np.log(np.where(turned, parameters[:, eis.SWAP], parameters)),
                           np.where(turned, deviations[:, eis.SWAP], deviations) ** 2)  # fmt: skip
    assert costs[tuple(swapped.tolist())] == pytest.approx(min(costs.values()), rel=1e-12)


def test_what_is_not_determined_has_no_say():
    """The capacitances are noise with wide deviations; the resistances tell the membranes apart."""
    truth = series(20, (np.array([500.0, 3000, 300, 1e-6, 1e-6]),) * 2, 0.02)
    truth[:, 3:] *= np.exp(1.5 * np.random.default_rng(2).standard_normal((20, 2)))
    deviations = np.tile([0.02, 0.02, 0.02, 1.5, 1.5], (20, 1))
    found, _ = stable_labels(shuffled(truth), deviations)
    same = (found == truth).all() or (found == truth[:, eis.SWAP]).all()
    assert same


def test_gaps_are_passed_over_and_short_series_stay():
    truth = series(15, TIMES)
    given = shuffled(truth)
    given[[0, 6, 7]] = np.nan
    found, swapped = stable_labels(given)
    keep = np.isfinite(given).all(axis=1)
    np.testing.assert_array_equal(found[keep], truth[keep])
    assert np.isnan(found[~keep]).all() and not swapped[~keep].any()
    one = truth[:1, eis.SWAP]
    np.testing.assert_array_equal(stable_labels(one)[0], truth[:1])
    np.testing.assert_array_equal(stable_labels(truth[:2])[0], truth[:2])
    assert stable_labels(np.full((3, 5), np.nan))[1].sum() == 0 and len(stable_labels(np.empty((0, 5)))[0]) == 0
