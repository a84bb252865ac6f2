"""Starts of fits: exact where the list holds the truth, near for noise and any range, within what a fit may reach."""

import numpy as np
import pytest

from domains import eis_start
from domains.eis import ENDS, HIGHEST, LOWEST, TOPOLOGIES, default_frequencies, from_places, impedance, to_places
from domains.eis_fit import levenberg_marquardt
from domains.eis_noise import noisy
from domains.eis_shunt import open_shunt
from runtime.errors import UsageError


def circuits(count: int, seed: int = 0) -> np.ndarray:
    return from_places(np.random.default_rng(seed).uniform(*ENDS, (count, 5)))


def misses(p: np.ndarray, f: np.ndarray, z: np.ndarray, topology: str, rs: np.ndarray | float = 0.0) -> np.ndarray:
    return (np.abs(impedance(p, f, topology, rs) - z) / np.abs(z)).mean(axis=1)


@pytest.mark.parametrize("constant", [True, False])
def test_pairs_of_the_list_and_what_terms_follow(constant):
    w = 2 * np.pi * default_frequencies(40)
    listed = eis_start.Listed(w, constant)
    taus = np.stack([listed.taus[[3, 9, 12]], listed.taus[[7, 4, 5]]], axis=1)
    ohms = np.array([[100.0, 900.0, 40.0], [5.0, 30.0, 70.0], [800.0, 20.0, 3.0]]) * [1, 1, constant]
    z = (ohms[:, :2, None] / (1 + 1j * w * taus[..., None])).sum(axis=1) + ohms[:, 2:]
    found = listed.pairs(z, np.abs(z))
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(taus, axis=1), rtol=0.02)  # single precision
    own, given, squares, done = eis_start.terms(w, z, np.abs(z), constant)
    order = (np.arange(3)[:, None], own.argsort(axis=1))
    np.testing.assert_allclose(own[order], np.sort(taus, axis=1), rtol=1e-5)
    np.testing.assert_allclose(given[:, :2][order], ohms[:, :2][(order[0], taus.argsort(axis=1))], rtol=1e-4)
    np.testing.assert_allclose(given[:, 2], ohms[:, 2], rtol=1e-4)
    assert (squares < 1e-9).all() and done.shape == (3,)


def test_a_time_constant_between_two_of_the_list_does_not_hide_a_small_term():
    w = 2 * np.pi * default_frequencies(60)
    listed = eis_start.Listed(w, constant=False)
    large, small = np.sqrt(listed.taus[8] * listed.taus[9]), listed.taus[3]
    z = (1000 / (1 + 1j * w * large) + 60 / (1 + 1j * w * small))[None]
    first, second = listed.pairs(z, np.abs(z))[0]
    assert np.log(first / large) == pytest.approx(0, abs=0.15)  # .49 before it is moved
    assert second == small


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(("points", "low", "high"), [(60, 1.0, 1e6), (12, 1e-2, 1e4), (200, 10.0, 1e7)])
def test_fits_of_any_range_are_as_near_as_the_noise(topology, points, low, high):
    f, p = np.geomspace(low, high, points), circuits(150)
    z = noisy(impedance(p, f, topology), 0.01, np.random.default_rng(1))
    (start, sure), found = eis_start.starts(f, z, topology), eis_start.fit(f, z, topology)
    over = misses(found.parameters, f, z, topology) / misses(p, f, z, topology)
    assert (over < 1.1).mean() > 0.98 and np.median(over) < 1  # 1.0 of these
    np.testing.assert_allclose(misses(found.parameters, f, z, topology), found.residual)
    # most need no fit: what is said of them is what one without steps says
    alone = found.steps == 0
    assert alone.mean() > 0.75 and alone[sure].all()
    held = levenberg_marquardt(f, z, start, topology, steps=0)
    for name in ("parameters", "residual", "normal", "variance"):
        np.testing.assert_array_equal(getattr(found, name)[alone], getattr(held, name)[alone])
    assert (found.variance[~alone] <= held.variance[~alone]).all()
    assert (misses(start[:, :5], f, z, topology)[alone] / misses(p, f, z, topology)[alone] < 1.1).all()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_terms_of_a_thousandth_are_found_at_little_noise(topology):
    """Of a start from pairs of a list and one rational fit 94% were within 1.5 times the noise, from mid-grid 98%."""
    f, p = default_frequencies(60), circuits(300)
    z = noisy(impedance(p, f, topology), 0.001, np.random.default_rng(1))
    over = eis_start.fit(f, z, topology).residual / misses(p, f, z, topology)
    assert (over < 1.5).mean() > 0.99 and (over < 1.1).mean() > 0.99  # 1.0 of these


def test_of_the_parallel_circuits_of_a_spectrum_one_inside_of_the_grid_is_taken():
    f = default_frequencies(60)
    places = to_places(eis_start.starts(f, impedance(circuits(200), f, "parallel"), "parallel")[0][:, :5])
    assert ((places > ENDS[0] - 1) & (places < ENDS[1] + 1)).all(axis=1).mean() > 0.95


def test_where_one_term_is_left_the_membranes_are_nearly_alike():
    # a clean mixture that needs a resistance below 0 in the second term
    f = default_frequencies(60)
    w = 2 * np.pi * f
    z = (500 / (1 + 1j * w * 1e-3) - 5 / (1 + 1j * w * 3e-2) + 20)[None]
    _, ra, rb, ca, cb, _ = eis_start.starts(f, z, "series")[0][0]
    assert ra == pytest.approx(rb) and abs(np.log(rb * cb / (ra * ca))) == pytest.approx(2 * np.log(eis_start.SPLIT))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_spectra_without_noise_are_met(topology):
    f, p = default_frequencies(60), circuits(200)
    found = eis_start.fit(f, impedance(p, f, topology), topology)
    assert (found.residual < 1e-3).all() and (found.residual < 1e-5).mean() > 0.95


def test_a_circuit_that_no_term_of_the_grid_makes_is_the_nearest_of_those_with_one_term():
    # the noise hides the second term, and what stands for it has no place near the grid
    f, floor = default_frequencies(60), 0.001
    w = 2 * np.pi * f
    z = noisy((9.39 / (1 + 1j * w * 1.03e-6) + 0.0036 / (1 + 1j * w * 1.5e-7))[None], floor, np.random.default_rng(0))
    start, _ = eis_start.starts(f, z, "parallel")
    assert misses(start[:, :5], f, z, "parallel")[0] < 1.5 * floor  # 48 times the noise if it is only moved
    found = eis_start.fit(f, z, "parallel")
    assert found.residual[0] < 1.3 * floor
    assert ((found.parameters >= LOWEST / 10) & (found.parameters <= HIGHEST * 10)).all()


def test_a_series_resistance_is_taken_off_or_found():
    f, p, rs = default_frequencies(60), circuits(100), np.linspace(5, 200, 100)
    z = impedance(p, f, "parallel", rs)
    told, _ = eis_start.starts(f, z, "parallel", rs)
    np.testing.assert_array_equal(told[:, 5], rs)
    assert (misses(told[:, :5], f, z, "parallel", rs) < 1e-3).mean() > 0.95
    asked, _ = eis_start.starts(f, z, "parallel", None)
    assert (misses(asked[:, :5], f, z, "parallel", asked[:, 5]) < 1e-3).mean() > 0.9
    seen = rs > 0.1 * open_shunt(p)[:, :2].sum(axis=1)  # else little of it shows
    assert np.median(np.abs(asked[seen, 5] / rs[seen] - 1)) < 0.01


def test_errors_are_in_proportion_to_the_whole_impedance_with_its_series_resistance():
    f, p, rs = default_frequencies(60), circuits(100), np.linspace(5, 200, 100)
    z = noisy(impedance(p, f, "parallel", rs), 0.01, np.random.default_rng(0))
    floor = misses(p, f, z, "parallel", rs)
    fit = eis_start.fit(f, z, "parallel", rs)
    np.testing.assert_array_equal(fit.rs, rs)
    assert (fit.residual < 1.1 * floor).all() and "Rs" not in fit.free and 0 < (fit.steps > 0).mean() < 1
    assert (eis_start.fit(f, z, "parallel", None).residual < 1.1 * floor).mean() > 0.98
    assert eis_start.fit(f, z, "parallel", None).free[-1] == "Rs"


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_starts_are_finite_and_within_reach_whatever_the_spectrum(topology):
    rng, f = np.random.default_rng(0), np.array([1.0, 7.0, 300.0, 2e3, 9e5])
    odd = rng.standard_normal((40, 5)) + 1j * rng.standard_normal((40, 5))
    flat = np.full((1, 5), 100 + 0j)
    one = (500 / (1 + 2j * np.pi * f * 1e-3))[None] + (50 if topology == "series" else 0)  # a single term: two alike
    found, _ = eis_start.starts(f, np.concatenate([1e3 * odd, 1e-3 * odd, flat, one]), topology)
    assert ((found[:, :5] >= LOWEST / 10) & (found[:, :5] <= HIGHEST * 10)).all() and (found[:, 5] == 0).all()
    assert misses(found[-1:, :5], f, one, topology)[0] < 1e-3


def test_a_fit_may_end_at_a_step_that_gains_little():
    f, p = default_frequencies(40), circuits(50)
    z = noisy(impedance(p, f, "series"), 0.01, np.random.default_rng(0))
    start, _ = eis_start.starts(f, z, "series")
    long, short = (levenberg_marquardt(f, z, start, "series", small=small) for small in (1e-7, 0.1))
    assert (short.steps <= long.steps).all() and short.steps.mean() < long.steps.mean() / 2
    with pytest.raises(UsageError, match="are one resistance"):
        eis_start.starts(f, z, "series", None)
