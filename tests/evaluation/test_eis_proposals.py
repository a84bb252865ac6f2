"""What the network says alone: its input, thinning, and a beam that loses nothing when it is as wide as the grid."""

import mlx.core as mx
import numpy as np
import pytest

from domains.eis import POINTS, default_frequencies, from_places, impedance, to_places
from domains.eis_spectrum import Spectrum
from evaluation.eis_proposals import as_input, beam, thinned
from models.eis_predictor import EISPredictor


@pytest.fixture(scope="module")
def predictor():
    mx.random.seed(0)
    return EISPredictor(shape=(12, 4), hidden=16, width=8, slots=4, depth=1, mixture=2)


def spectrum(count: int) -> Spectrum:
    frequencies = default_frequencies(count)
    return Spectrum(frequencies, impedance(np.array([460, 4820, 2210, 2e-6, 9e-6]), frequencies, "parallel"))


def test_spectra_of_unequal_length_become_one_array():
    short, long = spectrum(7), spectrum(40)
    x, known, mask = as_input([short, None, long], [{}, {0: 10.0}, {4: 5e-5, 1: 1e4}], 12)
    np.testing.assert_array_equal(x[..., 3].sum(axis=1), [7, 0, 12])
    np.testing.assert_allclose(x[0, :7, 0], np.log10(short.frequencies), rtol=1e-6)
    np.testing.assert_allclose(x[0, :7, 1] + 1j * x[0, :7, 2], short.z, rtol=1e-6)
    np.testing.assert_allclose(known[1:], [[0, 0, 0, 0, 0], [0, 11, 0, 0, 11]], atol=1e-5)
    np.testing.assert_array_equal(mask, [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 1]])
    assert x[2, 0, 0] == 0 and x[2, 11, 0] == 6


def test_thinning_keeps_both_ends_and_equal_distances_of_ln_f():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(thinned(default_frequencies(9), 9), np.arange(9))
    np.testing.assert_array_equal(thinned(default_frequencies(21), 11), 2 * np.arange(11))
    for _ in range(50):
        frequencies = np.sort(10 ** rng.uniform(0, 3, 30) * rng.choice([1, 1e3], 30))
        kept = thinned(frequencies, 12)
        assert len(kept) == 12 and (np.diff(kept) > 0).all() and kept[0] == 0 and kept[-1] == 29
    dense_low = np.concatenate([np.geomspace(1, 2, 100), np.geomspace(4, 1024, 9)])
    assert (thinned(dense_low, 11) >= 100).sum() == 9


def test_places_there_and_back():
    p = from_places(np.array([[0, 11, 0, 11, 5.5]]))
    np.testing.assert_allclose(p[0, :4], [10, 1e4, 10, 5e-5])
    np.testing.assert_allclose(to_places(p), [[0, 11, 0, 11, 5.5]], atol=1e-12)


def test_a_beam_as_wide_as_the_grid_is_its_enumeration_and_a_narrow_one_its_best(predictor):
    x, known, mask = map(mx.array, as_input([spectrum(12)], [{}], 12))
    context = predictor(x, known, mask)
    places, log_p = beam(predictor, context, known, mask, POINTS**5, within=False)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-3)
    assert len(np.unique(places[0], axis=0)) == POINTS**5 and (np.diff(log_p[0]) <= 1e-6).all()
    some = places[0, ::5000]
    chosen, _ = predictor.log_density(mx.broadcast_to(context, (len(some), 16)), mx.array(some), within=False)
    np.testing.assert_allclose(log_p[0, ::5000], np.array(chosen.sum(axis=-1)), atol=1e-4)
    few, best = beam(predictor, context, known, mask, 2000, within=False)
    np.testing.assert_array_equal(few[0, :5], places[0, :5])
    np.testing.assert_allclose(best[0, :5], log_p[0, :5], atol=1e-5)


def test_known_parameters_are_held_and_leave_as_many_circuits_as_there_are(predictor):
    spectra, given = [spectrum(12), spectrum(9)], [{0: 460.0, 1: 4820.0, 2: 2210.0}, {3: 1e-6}]
    x, known, mask = map(mx.array, as_input(spectra, given, 12))
    places, log_p = beam(predictor, predictor(x, known, mask), known, mask, 500, within=False)
    possible = np.isfinite(log_p)
    assert possible[0].sum() == POINTS**2 and possible[1].all()
    assert np.exp(log_p[0][possible[0]]).sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(from_places(places[0, possible[0]])[:, :3], [[460, 4820, 2210]] * 144, rtol=1e-5)
    np.testing.assert_allclose(places[1, :, 3], to_places(np.full(5, 1e-6))[3], rtol=1e-6)


def test_places_inside_cells_are_the_mixtures_means_for_continuous_networks(predictor):
    x, known, mask = map(mx.array, as_input([spectrum(12)], [{}], 12))
    context = predictor(x, known, mask)
    places, _ = beam(predictor, context, known, mask, 1)
    _, h = predictor.cells(context, mx.array(places[0]), 4)
    weight, centre, _ = predictor.inside(h, mx.array(np.rint(places[0, :, 4])).astype(mx.int32), 4)
    offset = (np.exp(np.array(weight)) * np.clip(np.array(centre), -0.5, 0.5)).sum()
    assert places[0, 0, 4] == pytest.approx(np.rint(places[0, 0, 4]) + offset, abs=1e-4)
