"""Drawn posteriors: exact ones pass whichever twin they draw, narrow ones fail; a network's draws are its density's."""

import mlx.core as mx
import numpy as np
import pytest

from domains.eis import SWAP, canonical, default_frequencies, impedance
from evaluation import eis_samples
from evaluation.eis_methods import Observed, circuits
from models.eis_predictor import EISPredictor

ROWS = 1500


def observed(places):
    f = default_frequencies(6)
    z = impedance(circuits(places), f, "series")
    x = np.stack([np.tile(np.log10(f), (len(z), 1)), z.real, z.imag, np.ones(z.shape)], axis=-1)
    return Observed(x, places, np.zeros(places.shape), "series", 0.01)


def conjugate(width: float, seed: int = 0):
    """Truths N(5.5, 1) seen with noise of std .5: the posterior has std sqrt(.2); draws have `width` times as much."""
    rng = np.random.default_rng(seed)
    truths = 5.5 + rng.standard_normal((ROWS, 5))
    seen = truths + 0.5 * rng.standard_normal((ROWS, 5))
    centre = 5.5 + (seen - 5.5) / 1.25
    places = centre[:, None] + width * np.sqrt(0.2) * rng.standard_normal((ROWS, 399, 5))
    twins = rng.random((ROWS, 399, 1)) < 0.5
    return observed(truths), np.where(twins, places[..., SWAP], places), rng


def test_an_exact_posterior_is_calibrated_and_a_narrow_one_is_not():
    own, places, _ = conjugate(1.0)
    found = eis_samples.posterior_scores(own, places)
    names = {name.removeprefix("coverage90_") for name in found if name.startswith("coverage90")}
    assert names == {"Rsh", "Ra", "Rb", "Ca", "Cb", "TER", "TEC", "tau_1", "tau_2"}
    for name in names:
        assert found[f"coverage90_{name}"] == pytest.approx(0.9, abs=0.03), name
        assert found[f"coverage50_{name}"] == pytest.approx(0.5, abs=0.05), name
        assert found[f"sbc_chance_{name}"] > 1e-3, name
    assert found["merged_ece"] < 2 * found["merged_ece_floor"]
    own, places, _ = conjugate(0.5)
    narrow = eis_samples.posterior_scores(own, places)
    for name in ("Rsh", "TER", "TEC"):
        assert narrow[f"coverage90_{name}"] < 0.75 and narrow[f"sbc_chance_{name}"] < 1e-6
    assert narrow["merged_ece"] > 3 * narrow["merged_ece_floor"]


def test_weights_make_a_wide_proposal_the_posterior():
    own, places, _ = conjugate(1.0)
    rng = np.random.default_rng(5)
    wide = places + 0.0
    keep = rng.random(places.shape[:2])  # draws far from where they belong, at weight 0
    wide[keep < 0.5] = rng.uniform(0, 11, (int((keep < 0.5).sum()), 5))
    found = eis_samples.posterior_scores(own, wide, (keep >= 0.5).astype(float))
    for name in ("Rsh", "Ca", "tau_1"):
        assert found[f"coverage90_{name}"] == pytest.approx(0.9, abs=0.03)
    assert eis_samples.posterior_scores(own, wide)["coverage50_Rsh"] > 0.6


def test_cells_by_hand():
    a, b = [1.2, 2, 3, 4, 5], [1.2, 3, 2, 5, 4]  # twins
    c = [7.0, 0, 9, 0, 9]
    places = np.array([[a, b, c, c, b]])
    cells, shares, example = eis_samples.likeliest_cells(places, None, merge=False)
    np.testing.assert_allclose(shares[0, :4], [0.4, 0.4, 0.2, 0])
    cells, shares, example = eis_samples.likeliest_cells(places, np.array([[1.0, 2, 4, 1, 1]]), merge=True)
    np.testing.assert_array_equal(cells[0, :2], [np.rint(c), [1, 2, 3, 4, 5]])
    np.testing.assert_allclose(shares[0, :3], [5 / 9, 4 / 9, 0])
    np.testing.assert_array_equal(example[0, :3], [c, b, c])


def test_draws_that_are_the_twin_of_the_truth_count_as_the_circuit():
    truths = np.random.default_rng(0).uniform(2, 9, (60, 5))
    own = observed(truths)
    twins = np.tile(truths[:, None, SWAP], (1, 40, 1))
    found = eis_samples.posterior_scores(own, twins)
    assert found["merged_top1"] == 1 and found["top1"] < 0.2
    assert found["residual"] < 1e-6 and found["error_TER"] < 1e-9 and found["coverage50_Ra"] == 1


def test_a_networks_draws_and_density():
    mx.random.seed(0)
    model = EISPredictor(shape=(6, 4), hidden=16, width=16, slots=4, depth=1)
    own = observed(np.random.default_rng(0).uniform(0, 11, (5, 5)))
    places = eis_samples.drawn(model, own, 7, seed=3, size=2)
    assert places.shape == (5, 7, 5) and len(np.unique(places[..., 0])) == 35
    np.testing.assert_array_equal(places, eis_samples.drawn(model, own, 7, seed=3, size=2))
    found = eis_samples.densities(model, own, size=2)
    nothing = mx.zeros((5, 5))
    context = model.encode(mx.array(own.x), nothing, nothing)
    parts = [model.log_density(context, mx.array(side)) for side in (own.places, own.places[:, SWAP])]
    p = [np.array((cell + inside).sum(axis=1)) for cell, inside in parts]
    assert found["nll"] == pytest.approx(-p[0].mean(), rel=1e-4)
    assert found["merged_nll"] == pytest.approx(-np.log(np.exp(p[0]) + np.exp(p[1])).mean(), rel=1e-4)


def test_quantities_are_in_canonical_order():
    p = circuits(np.random.default_rng(0).uniform(0, 11, (50, 5)))
    found, twins = eis_samples.quantities(p, "parallel"), eis_samples.quantities(p[:, SWAP], "parallel")
    np.testing.assert_allclose(10 ** found["Ra"], canonical(p)[:, 1])
    for name, value in found.items():
        np.testing.assert_allclose(value, twins[name], atol=1e-9)
