"""Drawn posteriors: exact ones pass whichever twin they draw, narrow ones fail; a network's draws are its density's."""

import mlx.core as mx
import numpy as np
import pytest

from domains.eis import SWAP, canonical, default_frequencies, from_places, impedance
from domains.eis_noise import log_likelihood, noisy
from evaluation import eis_samples
from evaluation.eis_methods import Observed
from models.eis_predictor import EISPredictor

ROWS = 1000


def observed(places):
    f = default_frequencies(6)
    z = impedance(from_places(places), f, "series")
    x = np.stack([np.tile(np.log10(f), (len(z), 1)), z.real, z.imag, np.ones(z.shape)], axis=-1)
    return Observed(x, places, np.zeros(places.shape), "series", 0.01)


def conjugate(width: float, seed: int = 0):
    """Truths N(5.5, 1) seen with noise of std .5: the posterior has std sqrt(.2); draws have `width` times as much."""
    rng = np.random.default_rng(seed)
    truths = 5.5 + rng.standard_normal((ROWS, 5))
    seen = truths + 0.5 * rng.standard_normal((ROWS, 5))
    centre = 5.5 + (seen - 5.5) / 1.25
    places = centre[:, None] + width * np.sqrt(0.2) * rng.standard_normal((ROWS, 199, 5))
    twins = rng.random((ROWS, 199, 1)) < 0.5
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
    places, log_q = eis_samples.drawn(model, own, 7, seed=3, size=2)
    assert places.shape == (5, 7, 5) and len(np.unique(places[..., 0])) == 35
    np.testing.assert_array_equal(places, eis_samples.drawn(model, own, 7, seed=3, size=2)[0])
    found = eis_samples.densities(model, own, size=2)
    nothing = mx.zeros((5, 5))
    context = model.encode(mx.array(own.x), nothing, nothing)
    parts = [model.log_density(context, mx.array(side)) for side in (own.places, own.places[:, SWAP])]
    p = [np.array((cell + inside).sum(axis=1)) for cell, inside in parts]
    assert found["nll"] == pytest.approx(-p[0].mean(), rel=1e-4)
    assert found["merged_nll"] == pytest.approx(-np.log(np.exp(p[0]) + np.exp(p[1])).mean(), rel=1e-4)


def test_quantities_are_in_canonical_order():
    p = from_places(np.random.default_rng(0).uniform(0, 11, (50, 5)))
    found, twins = eis_samples.quantities(p, "parallel"), eis_samples.quantities(p[:, SWAP], "parallel")
    np.testing.assert_allclose(10 ** found["Ra"], canonical(p)[:, 1])
    for name, value in found.items():
        np.testing.assert_allclose(value, twins[name], atol=1e-9)


def test_starts_about_the_truth_have_the_density_they_say():
    own = observed(np.array([[0.0, 5, 5, 5, 11], [3, 3, 3, 3, 3]]))
    places, log_q = eis_samples.near_the_truth(own, 40_000, np.random.default_rng(0))
    inside = np.all((places > -0.5) & (places < 11.5), axis=-1)
    weight = inside * np.exp(-5 * np.log(12) - log_q)  # prior over density: 1 on average, its mean place is the prior's
    np.testing.assert_allclose(weight.mean(axis=1), 1, atol=0.02)
    np.testing.assert_allclose((weight[..., None] * np.where(inside[..., None], places, 0)).mean(axis=1), 5.5, atol=0.1)
    close = (np.abs(places - own.places[:, None]) < 0.4).all(axis=-1)
    np.testing.assert_allclose(close.mean(axis=1), 0.5, atol=0.01)


def measured(truths, topology, level, points, rs=0.0, seed=0):
    rng = np.random.default_rng(seed)
    f = np.geomspace(1, 1e4 if points < 5 else 1e6, points)
    series = rs * 1000 ** -rng.random(len(truths))
    z = noisy(impedance(from_places(truths), f, topology, series), level, rng)
    x = np.stack([np.tile(np.log10(f), (len(z), 1)), z.real, z.imag, np.ones(z.shape)], axis=-1)
    return Observed(x, truths, np.zeros(truths.shape), topology, level, rs), rng


@pytest.mark.parametrize("topology, rs", [("series", 0.0), ("parallel", 0.0), ("parallel", 300.0)])
def test_the_exact_posterior_is_calibrated_and_holds_both_twins(topology, rs):
    truths = np.random.default_rng(1).uniform(-0.5, 11.5, (80, 5))
    own, rng = measured(truths, topology, 0.02, 12, rs)
    near = eis_samples.near_the_truth(own, 100, rng)
    places, origin, effective, _ = eis_samples.exact_draws(own, *near, 100, rng)
    assert places.shape == (80, 100, 5) and np.median(effective) > 50
    twin = (canonical(from_places(places)) == from_places(places)).all(axis=-1).mean()
    assert twin == pytest.approx(0.5, abs=0.03)
    assert origin.shape == (80, 100) and (np.diff(origin) >= 0).all()
    found = eis_samples.posterior_scores(own, places, bins=8, origin=origin)
    covered = [value for name, value in found.items() if name.startswith("coverage90")]
    chances = [value for name, value in found.items() if name.startswith("sbc_chance")]
    assert min(covered) > 0.75 and np.mean(covered) == pytest.approx(0.9, abs=0.05) and min(chances) > 1e-3
    off = eis_samples.posterior_scores(own, np.broadcast_to(places.mean(axis=1, keepdims=True), places.shape), bins=8)
    assert off["coverage90_TER"] < 0.1
    assert found["residual"] == pytest.approx(0.025, rel=0.3)  # the mean size of the noise, .02 sqrt(pi / 2)


@pytest.mark.parametrize("topology, rs", [("series", 0.0), ("parallel", 0.0), ("parallel", 300.0)])
def test_the_exact_density_is_bayes_rule(topology, rs):
    """Against the mean likelihood of circuits of the prior, which a spectrum of three vague points lets count.

    So wide a posterior is the sampler's worst case: its evidence comes out up to a tenth low.
    """
    own, rng = measured(np.array([[5.0, 6, 4, 3, 8], [2.0, 8, 8, 5, 5]]), topology, 0.3, 3, rs)
    *_, found = eis_samples.exact_draws(own, *eis_samples.near_the_truth(own, 400, rng), 1000, rng)
    draws = 200_000
    series = rs * 1000 ** -rng.random(draws)
    prior = impedance(from_places(rng.uniform(-0.5, 11.5, (draws, 5))), own.frequencies, topology, series)
    true = impedance(own.parameters[:, None], own.frequencies, topology, series[:20_000])
    log_p = []
    for z, mine in zip(own.z, true, strict=True):
        each = np.exp(log_likelihood(z, prior, 0.3))
        assert each.std() / each.mean() / np.sqrt(draws) < 0.05
        log_p.append(np.log(np.exp(log_likelihood(z, mine, 0.3)).mean() / each.mean()) - 5 * np.log(12))
    assert found["nll"] == pytest.approx(-np.mean(log_p), abs=0.25)
    assert found["merged_nll"] == pytest.approx(found["nll"] - np.log(2))
