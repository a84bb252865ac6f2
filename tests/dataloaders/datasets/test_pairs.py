"""Pairs and trials: what stands beside what, how often, and that rows come from the seed alone."""

import numpy as np
import pytest

from dataloaders.datasets.pairs import OneShotTrials, PairsDataset
from dataloaders.datasets.rows import NumpyDataset
from dataloaders.pipeline import Pipeline
from runtime.errors import UsageError

KINDS = np.array([0, 1, 2, 3] * 6)


def rows():
    """Sample i is the number i, so that a pair tells which rows it is made of."""
    return NumpyDataset({"x": np.arange(24), "y": KINDS})


def test_pairs_match_as_often_as_asked_and_never_a_row_with_itself():
    data = PairsDataset(rows(), classes=[0, 2, 3], percent_matching_data=0.25)
    assert len(data) == 18
    rng = np.random.default_rng(0)
    pairs = [data.sample(index, rng) for _ in range(200) for index in range(18)]
    left, right, match = (np.array([pair[key] for pair in pairs]) for key in ("x_a", "x_b", "y"))
    np.testing.assert_array_equal(left[:18], np.flatnonzero(KINDS != 1))
    np.testing.assert_array_equal(match, KINDS[left] == KINDS[right])
    assert (left != right).all() and 1 not in KINDS[right]
    assert abs(match.mean() - 0.25) < 0.03
    beside = right[(left == 4) & (match == 1)]  # the five other rows of class 0, each a fifth
    assert set(beside) == {0, 8, 12, 16, 20} and np.bincount(beside).max() < 0.4 * len(beside)
    assert set(right[(left == 4) & (match == 0)]) == set(np.flatnonzero((KINDS == 2) | (KINDS == 3)))


def test_a_pipeline_draws_the_same_pairs_from_the_same_seed():
    def first(seed, start=0):
        iterator = Pipeline(train_data=PairsDataset(rows()), batch_size=8, seed=seed).batches("train", start)
        return [next(iterator) for _ in range(6 - start)]

    one, again, later, other = first(0), first(0), first(0, start=4), first(1)
    for key in ("x_a", "x_b", "y"):
        for a, b in zip(one, again, strict=True):
            np.testing.assert_array_equal(a[key], b[key])
        np.testing.assert_array_equal(one[4][key], later[0][key])
    assert not all(np.array_equal(a["x_b"], b["x_b"]) for a, b in zip(one, other, strict=True))
    early, late = ({*zip(batch["x_a"], batch["x_b"], strict=True)} for batch in (one[0], one[3]))
    assert early != late  # the second epoch pairs anew


def test_a_trial_has_one_question_and_one_match_among_different_classes():
    data = OneShotTrials(rows(), trials=300, ways=3, seed=5)
    assert len(data) == 900
    found = [data[i] for i in range(900)]
    left, right, match = (np.array([row[key] for row in found]).reshape(300, 3) for key in ("x_a", "x_b", "y"))
    assert (left == left[:, :1]).all() and (match.sum(1) == 1).all() and (left != right).all()
    assert all(len(set(KINDS[shown])) == 3 for shown in right)
    np.testing.assert_array_equal(match, KINDS[left] == KINDS[right])
    assert (np.bincount(match.argmax(1)) > 70).all()  # the match is anywhere
    again, other = OneShotTrials(rows(), 300, 3, seed=5), OneShotTrials(rows(), 300, 3, seed=6)
    assert again.pairs == data.pairs != other.pairs and again.fingerprint() == data.fingerprint()
    few = OneShotTrials(rows(), 50, 2, [1, 3])
    assert set(KINDS[[few[i]["x_b"] for i in range(100)]]) == {1, 3}


def test_mistakes_are_told():
    with pytest.raises(UsageError, match="got 1.5"):
        PairsDataset(rows(), percent_matching_data=1.5)
    with pytest.raises(UsageError, match=r"two rows at least, got \[6, 0\]"):
        PairsDataset(rows(), classes=[1, 7])
    with pytest.raises(UsageError, match=r"got \[6\]"):
        OneShotTrials(rows(), 5, 2, classes=[1])
    with pytest.raises(UsageError, match="ways in 2..4, got 5 and 5"):
        OneShotTrials(rows(), 5, 5)
