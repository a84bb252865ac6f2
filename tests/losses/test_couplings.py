"""Couplings against brute force, closed forms and an independent solver."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from losses.couplings import Coupling, squared_distances
from runtime.errors import UsageError


def pairs_cost(batch):
    return np.square(batch["x"] - batch["x0"]).sum()


def made(count, shape=(2,), seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(3, 1, (count, *shape)).astype(np.float32),
        "x0": rng.normal(size=(count, *shape)).astype(np.float32),
        "label": np.arange(count, dtype=np.int32),
    }


@pytest.mark.parametrize("seed", range(5))
def test_ot_against_all_permutations(seed):
    batch = made(6, seed=seed)
    found = Coupling("ot")(batch, np.random.default_rng(0))
    best = min(np.square(batch["x"] - batch["x0"][list(p)]).sum() for p in itertools.permutations(range(6)))
    assert abs(pairs_cost(found) - best) < 1e-4


def test_ot_is_a_permutation_that_leaves_data_and_labels_alone():
    batch = made(64, shape=(4, 4, 1))
    found = Coupling("ot")(batch, np.random.default_rng(0))
    assert found["x"] is batch["x"] and found["label"] is batch["label"]
    assert (np.sort(found["x0"].ravel()) == np.sort(batch["x0"].ravel())).all()
    assert found["x0"].dtype == np.float32 and pairs_cost(found) < pairs_cost(batch)


def test_ot_in_one_dimension_sorts():
    batch = made(200, shape=(1,))
    found = Coupling("ot")(batch, np.random.default_rng(0))
    order = np.argsort(found["x"].ravel())
    assert (np.diff(found["x0"].ravel()[order]) >= 0).all()


def test_ot_equals_the_assignment_of_scipy():
    batch = made(256)
    cost = squared_distances(batch["x"], batch["x0"])
    found = Coupling("ot").partners(batch["x"], batch["x0"], np.random.default_rng(0))
    assert (found == linear_sum_assignment(cost)[1]).all()


def test_sinkhorn_plan_has_uniform_margins_and_meets_both_limits():
    batch = made(64)
    cost = squared_distances(batch["x"], batch["x0"])
    plan = Coupling("sinkhorn", regularization=0.05).sinkhorn(cost)
    assert np.abs(plan.sum(0) * 64 - 1).max() < 1e-3 and np.abs(plan.sum(1) * 64 - 1).max() < 1e-3
    assert np.abs(Coupling("sinkhorn", regularization=1e4).sinkhorn(cost) * 64**2 - 1).max() < 1e-2  # independent
    best = pairs_cost(Coupling("ot")(batch, np.random.default_rng(0)))
    costs = [(Coupling("sinkhorn", regularization=r).sinkhorn(cost) * cost).sum() * 64 for r in (0.3, 0.05, 0.005)]
    assert costs[0] > costs[1] > costs[2] > best * (1 - 1e-3) and costs[2] < 1.05 * best


def test_sinkhorn_partners_follow_the_plan():
    batch = made(8)
    coupling = Coupling("sinkhorn", regularization=0.3)
    plan = coupling.sinkhorn(squared_distances(batch["x"], batch["x0"]))
    rng = np.random.default_rng(1)
    drawn = np.stack([coupling.partners(batch["x"], batch["x0"], rng) for _ in range(2000)])
    counts = np.stack([(drawn == j).mean(axis=0) for j in range(8)], axis=1)
    assert np.abs(counts - plan / plan.sum(1, keepdims=True)).max() < 0.06


def test_draws_normal_noise_where_there_is_none():
    batch = made(500)
    del batch["x0"]
    first, again = (Coupling("ot")(batch, np.random.default_rng(5))["x0"] for _ in range(2))
    assert first.dtype == np.float32 and first.shape == (500, 2) and (first == again).all()
    assert abs(first.mean()) < 0.15 and abs(first.std() - 1) < 0.1


def test_wrong_parameters_are_refused():
    with pytest.raises(UsageError, match="got 0"):
        Coupling("ot", span=0)
    with pytest.raises(UsageError, match="got 0"):
        Coupling("sinkhorn", regularization=0)
