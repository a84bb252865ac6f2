"""Rankings of grid circuits: by hand, the oracle against its full table, a predictor against enumeration."""

import mlx.core as mx
import numpy as np
import pytest

from domains.eis import SWAP, canonical_indices, default_frequencies, impedance, on_grid
from domains.eis_noise import noisy
from evaluation import eis_ranking
from evaluation.eis_oracle import COUNT, GridOracle, flat
from models.eis_factorial import FactorialPredictor
from models.eis_predictor import EISPredictor

FREQUENCIES = default_frequencies(12)
A, B = [1, 2, 3, 4, 5], [1, 3, 2, 5, 4]  # twins: A is canonical
C, D = [0, 5, 5, 6, 6], [4, 0, 1, 1, 0]  # C is its own twin


def ranking(cells, chances, truth, twin):
    log = [np.log(np.array(values, float)) for values in (chances, truth, twin)]
    return eis_ranking.Ranking(np.array(cells), *log)


@pytest.fixture(scope="module")
def oracle():
    return GridOracle(FREQUENCIES, "series", 0.02)


@pytest.fixture(scope="module")
def seen():
    rng = np.random.default_rng(0)
    truths = rng.integers(0, 12, (20, 5))
    mask = (np.argsort(rng.random((20, 5)), axis=1) < 3).astype(float)
    return truths, mask, noisy(impedance(on_grid(truths), FREQUENCIES, "series"), 0.02, rng)


@pytest.mark.slow
@pytest.mark.parametrize(
    "topology, want", [("series", [0.39, 0.79, 0.87, 0.92]), ("parallel", [0.43, 0.83, 0.9, 0.92])]
)
def test_ceilings_at_one_percent(topology, want):
    """Found by an enumeration of its own, n = 400 to 1200; here 1000, so three standard errors are about .05."""
    oracle, rng = GridOracle(default_frequencies(), topology, 0.01), np.random.default_rng(0)
    truths = rng.integers(0, 12, (1000, 5))
    mask = (np.argsort(rng.random((1000, 5)), axis=1) < 3).astype(float)
    z = noisy(impedance(on_grid(truths), oracle.frequencies, topology), 0.01, rng)
    joint, completion = (eis_ranking.scores(part, truths) for part in eis_ranking.exact(oracle, z, truths, mask))
    assert joint["top1"] == pytest.approx(want[0], abs=0.06)
    assert joint["merged_top1"] == pytest.approx(want[1], abs=0.05)
    assert joint["top5"] == pytest.approx(want[2], abs=0.05)
    assert completion["top1"] == pytest.approx(want[3], abs=0.05)
    if topology == "series":
        assert joint["nll"] == pytest.approx(1.44, abs=0.15)
    for part in (joint, completion):
        assert part["merged_ece"] == pytest.approx(part["merged_ece_floor"], abs=0.015)


def as_input(z):
    return np.stack([np.tile(np.log10(FREQUENCIES), (len(z), 1)), z.real, z.imag, np.ones(z.shape)], axis=-1)


def test_scores_by_hand():
    """30 rows alike: C first, then the truth's twin B and the truth A, whose chances together are more than C's."""
    truths = np.array(30 * [A])
    own = ranking(30 * [[C, B, A, D]], 30 * [[0.4, 0.35, 0.2, 0.05]], 30 * [0.2], 30 * [0.35])
    found = eis_ranking.scores(own, truths)
    assert (found["top1"], found["top5"], found["top10"]) == (0, 1, 1)
    assert found["nll"] == pytest.approx(-np.log(0.2)) and found["ece"] == pytest.approx(0.4)
    assert found["merged_top1"] == 1 and found["merged_nll"] == pytest.approx(-np.log(0.55))
    assert found["merged_ece"] == pytest.approx(0.45)
    merged = own.merged(truths)
    np.testing.assert_array_equal(merged.cells[0, :3], [A, C, D])
    np.testing.assert_allclose(np.exp(merged.log_p[0]), [0.55, 0.4, 0.05, 0], atol=1e-12)
    alone = ranking(30 * [[C, B, A, D]], 30 * [[0.4, 0.35, 0.2, 0.05]], 30 * [0.4], 30 * [0.4])
    assert eis_ranking.scores(alone, np.array(30 * [C]))["merged_nll"] == pytest.approx(-np.log(0.4))  # not twice


def test_the_exact_ranking_is_the_posteriors(oracle, seen):
    truths, mask, z = seen
    joint, completion = eis_ranking.exact(oracle, z, truths, mask, size=7)
    table = np.exp(oracle.log_posterior(z))
    np.testing.assert_allclose(np.exp(joint.log_p), -np.sort(-table, axis=1)[:, :64], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(np.exp(joint.truth), table[np.arange(20), flat(truths)], rtol=1e-9)
    np.testing.assert_allclose(joint.truth, joint.twin, rtol=1e-4, atol=1e-6)  # no spectrum tells them apart
    own = flat(canonical_indices(oracle.indices))
    merged = np.stack([np.bincount(own, row, minlength=COUNT) for row in table])
    np.testing.assert_allclose(np.exp(joint.merged(truths).log_p[:, 0]), merged.max(axis=1), rtol=1e-3)
    for row in range(20):
        known = {i: truths[row : row + 1, i] for i in range(5) if mask[row, i]}
        want = np.exp(oracle.log_posterior(z[row : row + 1], known))[0]
        np.testing.assert_allclose(np.exp(completion.log_p[row]), -np.sort(-want)[:64], rtol=1e-6, atol=1e-12)
        assert np.exp(completion.truth[row]) == pytest.approx(want[flat(truths[row])])
        assert np.exp(completion.twin[row]) == pytest.approx(want[flat(truths[row, SWAP])])


@pytest.mark.parametrize("kind", [EISPredictor, FactorialPredictor])
def test_a_predictors_ranking_is_that_of_all_completions(kind, seen):
    truths, mask, z = seen
    mx.random.seed(0)
    small = {"width": 16, "slots": 4, "depth": 1} if kind is EISPredictor else {}
    model = kind(shape=(12, 4), hidden=16, **small)
    found = eis_ranking.predicted(model, as_input(z), truths, mask, width=144, size=7)
    for row in range(20):
        asked = np.flatnonzero(mask[row] == 0)
        every = np.tile(truths[row], (144, 1))
        every[:, asked] = np.indices((12, 12)).reshape(2, 144).T
        given, known_mask = mx.array(truths[row : row + 1] * mask[row : row + 1]), mx.array(mask[row : row + 1])
        context = model.encode(mx.array(as_input(z[row : row + 1])), given.astype(mx.float32), known_mask)
        chosen, _ = model.log_density(mx.broadcast_to(context, (144, context.shape[1])), mx.array(every), within=False)
        want = np.array(chosen)[:, asked].sum(axis=1)
        best = np.argsort(-want)
        np.testing.assert_allclose(found.log_p[row], want[best], atol=1e-4)
        np.testing.assert_array_equal(found.cells[row, 0], every[best[0]])
        own = (every == truths[row]).all(axis=1)
        assert found.truth[row] == pytest.approx(want[own][0], abs=1e-4)
        twin = (every == truths[row, SWAP]).all(axis=1)
        assert found.twin[row] == pytest.approx(want[twin][0] if twin.any() else -np.inf, abs=1e-4)
    assert np.exp(found.log_p).sum(axis=1) == pytest.approx(1, abs=1e-4)


def test_a_list_that_holds_all_becomes_the_oracle_by_the_likelihood(oracle, seen):
    """Whatever the predictor thought of the listed circuits; what it lists not keeps its share."""
    truths, mask, z = seen
    _, want = eis_ranking.exact(oracle, z, truths, mask)
    mx.random.seed(0)
    model = FactorialPredictor(hidden=16)
    every = eis_ranking.predicted(model, as_input(z), truths, mask, width=144)
    found = eis_ranking.reweighted(every, truths, FREQUENCIES, z, "series", 0.02)
    np.testing.assert_allclose(np.exp(found.log_p[:, :64]), np.exp(want.log_p), atol=2e-4)
    np.testing.assert_allclose(np.exp(found.truth), np.exp(want.truth), atol=2e-4)
    few = eis_ranking.predicted(model, as_input(z), truths, mask, width=72)
    some = eis_ranking.reweighted(few, truths, FREQUENCIES, z, "series", 0.02)
    np.testing.assert_allclose(np.exp(some.log_p).sum(axis=1), np.exp(few.log_p).sum(axis=1), rtol=1e-6)
    listed = eis_ranking.hits(few.cells, truths, 72)
    assert 0 < listed.sum() < 20
    np.testing.assert_array_equal(some.truth[~listed], few.truth[~listed])
    assert (some.truth[listed] > few.truth[listed]).any()


def test_the_whole_joint_is_ranked_where_nothing_is_known(seen):
    truths, _, z = seen
    mx.random.seed(1)
    model = EISPredictor(shape=(12, 4), hidden=16, width=16, slots=4, depth=1)
    model.update({"cell": [{"weight": 20 * layer.weight} for layer in model.cell]})  # opinions, so that a beam holds
    found = eis_ranking.predicted(model, as_input(z[:1]), truths[:1], np.zeros((1, 5)), width=2000)
    context = model.encode(mx.array(as_input(z[:1])), mx.zeros((1, 5)), mx.zeros((1, 5)))
    every = np.stack(np.unravel_index(np.arange(COUNT), (12,) * 5), axis=-1)
    chosen = [np.array(model.log_density(mx.broadcast_to(context, (len(part), 16)), mx.array(part), within=False)[0])
              for part in np.array_split(every, 16)]  # fmt: skip
    want = np.concatenate(chosen).sum(axis=1)
    best = np.argsort(-want)[:10]
    np.testing.assert_array_equal(found.cells[0, :10], every[best])
    np.testing.assert_allclose(found.log_p[0, :10], want[best], atol=1e-3)
    assert found.truth[0] == pytest.approx(want[flat(truths[0])], abs=1e-3)
