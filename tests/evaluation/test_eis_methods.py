"""Methods beside each other: chance by counting, fits that find what they must, what a circuit reconstructs."""

import numpy as np
import pytest

from domains.eis import canonical_indices, default_frequencies, from_places, impedance, invariants
from domains.eis_noise import noisy
from evaluation import eis_methods
from evaluation.eis_methods import Observed
from evaluation.eis_oracle import COUNT, flat


def observed(places, topology="series", level=0.001, points=30):
    rng = np.random.default_rng(1)
    f = default_frequencies(points)
    z = noisy(impedance(from_places(places), f, topology), level, rng)
    x = np.stack([np.tile(np.log10(f), (len(z), 1)), z.real, z.imag, np.ones(z.shape)], axis=-1)
    return Observed(x, places, eis_methods.three_known(len(z), rng), topology, level)


def test_chance_by_counting_all_from_places():
    every = np.stack(np.unravel_index(np.arange(COUNT), (12,) * 5), axis=-1)
    mass = np.bincount(flat(canonical_indices(every)), minlength=COUNT) / COUNT
    found, own = eis_methods.uniform(), mass[flat(canonical_indices(every))]
    assert found["merged_nll"] == pytest.approx(-np.log(own).mean(), rel=1e-9)
    assert found["nll"] == pytest.approx(np.log(COUNT))
    for k in (1, 5, 10):
        assert found[f"merged_top{k}"] == pytest.approx(np.sort(mass)[-k:].sum())
        assert found[f"top{k}"] * COUNT == pytest.approx(k) and found[f"completion_top{k}"] * 144 == pytest.approx(k)


def test_what_is_observed():
    places = np.array([[0, 1, 2, 3, 11.0], [4, 4, 4, 4, 4]])
    own = observed(places)
    np.testing.assert_allclose(own.frequencies, default_frequencies(30))
    np.testing.assert_allclose(own.z, impedance(own.parameters, own.frequencies, "series"), rtol=0.01)
    np.testing.assert_array_equal(own.cells, places)
    assert own.on_grid and not observed(places + 0.2).on_grid
    np.testing.assert_array_equal(observed(places + 0.4).cells, places)
    mask = eis_methods.three_known(4000, np.random.default_rng(0))
    assert (mask.sum(axis=1) == 3).all()
    kinds, counts = np.unique(mask, axis=0, return_counts=True)
    assert len(kinds) == 10 and counts.min() > 320


def test_reconstruction_and_invariants_by_hand():
    own = observed(np.array([[5.0, 6, 7, 2, 8]]), level=0.0)
    wrong = own.parameters * np.array([2.0, 2, 2, 0.5, 0.5])  # the same times, twice the impedance: |dZ| = |Z|
    np.testing.assert_allclose(
        eis_methods.reconstruction(own, np.stack([wrong, own.parameters], axis=1)), [[1, 0]], atol=1e-9
    )
    found = eis_methods.reconstructed(own, np.stack([wrong, own.parameters], axis=1))
    assert found["residual"] == pytest.approx(1) and found["residual_best10"] == pytest.approx(0, abs=1e-9)
    errors = eis_methods.invariant_errors(invariants(wrong, "series"), own.parameters, "series")
    want = {
        "error_TER": np.log10(2),
        "error_Rsh": np.log10(2),
        "error_TEC": np.log10(2),
        "error_tau_1": 0,
        "error_tau_2": 0,
    }
    assert errors == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("topology", ["series", "parallel"])
def test_fits_find_the_circuit_where_the_noise_lets_them(topology):
    """Middle cells, so that nothing is hidden behind something larger; parallel: only once Rsh is known."""
    places = np.random.default_rng(0).integers(4, 8, (40, 5)).astype(float)
    places[:, 3:] = [2, 9]  # times apart
    own = observed(places, topology, level=1e-4)
    score = eis_methods.least_squares(own)
    assert score["residual"] == pytest.approx(1e-4, rel=0.5)
    if topology == "series":
        assert score["merged_top1"] == 1 and 0 < score["top1"] <= 1
    found = eis_methods.projected(own)
    assert eis_methods.guessed(own, found)["residual"] == pytest.approx(score["residual"], rel=0.05)
    for name, error in eis_methods.invariant_errors(invariants(found, topology), own.parameters, topology).items():
        assert error < 1e-3, name
    known = Observed(own.x, own.places, np.tile([1, 0, 1, 1, 0], (40, 1)), topology, 1e-4)
    np.testing.assert_allclose(eis_methods.completed(known), own.parameters, rtol=0.02)
    assert eis_methods.least_squares(known)["completion_top1"] == 1


def test_spectra_of_other_lengths_are_fitted_and_reconstructed_by_their_points():
    """Points are left out and garbage stands in their places; a resistance stands before the circuit."""
    places = np.array([[5.0, 4, 6, 2, 9], [6, 5, 4, 3, 8], [4, 6, 6, 1, 7]])
    own = observed(places, "parallel", level=0.0, points=40)
    x = own.x.copy()
    x[..., 1] += 50
    x[0, 30:], x[1, ::3] = [6, 7e7, -8e8, 0], [1, 9e9, 1e9, 0]
    varied = Observed(x, places, own.mask, "parallel", 0.0, 100.0)
    assert own.alike and not varied.alike and varied.present.sum(axis=1).tolist() == [30, 26, 40]
    np.testing.assert_allclose(eis_methods.reconstruction(varied, own.parameters[:, None]), 0, atol=1e-6)
    without = Observed(x, places, own.mask, "parallel", 0.0, 0.0)
    used = x[0, :30, 1] + 1j * x[0, :30, 2]
    want = (50 / np.abs(used)).mean()
    assert eis_methods.reconstruction(without, own.parameters[:, None])[0, 0] == pytest.approx(want, rel=1e-6)
    for found in (eis_methods.fitted(varied, own.parameters), eis_methods.projected(varied)):
        for name, value in invariants(found, "parallel").items():
            np.testing.assert_allclose(value, invariants(own.parameters, "parallel")[name], rtol=1e-3, err_msg=name)
