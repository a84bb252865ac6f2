"""Ground truths: exact numbers, ranges, seeds, shares."""

import numpy as np
import pytest

from domains import eis, eis_truths
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
