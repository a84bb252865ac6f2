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


def misses(p: np.ndarray, f: np.ndarray, z: np.ndarray, topology: str, rs=0.0) -> np.ndarray:
    return (np.abs(impedance(p, f, topology, rs) - z) / np.abs(z)).mean(axis=1)


@pytest.mark.parametrize("constant", [True, False])
def test_time_constants_of_the_list_and_the_resistances_are_found_exactly(constant):
    w = 2 * np.pi * default_frequencies(40)
    listed = eis_start.Listed(w, constant)
    taus = np.stack([listed.taus[[3, 9, 12]], listed.taus[[7, 4, 5]]], axis=1)
    ohms = np.array([[100.0, 900.0, 40.0], [5.0, 30.0, 70.0], [800.0, 20.0, 3.0]]) * [1, 1, constant]
    z = (ohms[:, :2, None] / (1 + 1j * w * taus[..., None])).sum(axis=1) + ohms[:, 2:]
    found = listed.pairs(z)
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(taus, axis=1), rtol=0.02)  # single precision
    np.testing.assert_allclose(eis_start.resistances(w, z, taus, constant), ohms, rtol=1e-6)
    # any weight leads to the ratio without noise
    away = taus * [[3.0, 0.5]]
    np.testing.assert_allclose(eis_start.rational(w, z, away, constant), np.sort(taus, axis=1), rtol=1e-4)


def test_a_time_constant_between_two_of_the_list_does_not_hide_a_small_term():
    w = 2 * np.pi * default_frequencies(60)
    listed = eis_start.Listed(w, constant=False)
    large, small = np.sqrt(listed.taus[8] * listed.taus[9]), listed.taus[3]
    z = (1000 / (1 + 1j * w * large) + 60 / (1 + 1j * w * small))[None]
    first, second = listed.pairs(z)[0]
    assert np.log(first / large) == pytest.approx(0, abs=0.15)  # .49 before it is moved
    assert second == small


def test_a_resistance_below_zero_is_left_out_and_the_others_are_the_best_without_it():
    w = 2 * np.pi * default_frequencies(20)
    taus = np.array([[1e-4, 1e-2]])
    z = (50 / (1 + 1j * w * 1e-4) - 3 / (1 + 1j * w * 1e-2) + 20)[None]
    found = eis_start.resistances(w, z, taus, True)[0]
    size = np.abs(z[0])
    columns = np.stack([1 / (1 + 1j * w * 1e-4), np.ones(20)], axis=1) / size[:, None]
    flat, goal = np.concatenate([columns.real, columns.imag]), np.concatenate([z[0].real / size, z[0].imag / size])
    np.testing.assert_allclose(found, np.insert(np.linalg.lstsq(flat, goal)[0], 1, 0), rtol=1e-6)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(("points", "low", "high"), [(60, 1.0, 1e6), (12, 1e-2, 1e4), (200, 10.0, 1e7)])
def test_a_few_steps_from_a_start_fit_any_range(topology, points, low, high):
    f, p = np.geomspace(low, high, points), circuits(150)
    z = noisy(impedance(p, f, topology), 0.01, np.random.default_rng(1))
    start = eis_start.starts(f, z, topology)
    floor = misses(p, f, z, topology)
    found = levenberg_marquardt(f, z, start, topology, steps=10, small=1e-2)
    over = misses(found.parameters, f, z, topology) / floor
    assert (over < 1.5).mean() > 0.93  # .99 of many
    assert found.steps.mean() < 4
    np.testing.assert_allclose(misses(start[:, :5], f, z, topology),
                               levenberg_marquardt(f, z, start, topology, steps=0).residual)  # fmt: skip


def test_of_the_parallel_circuits_of_a_spectrum_one_inside_of_the_grid_is_taken():
    f = default_frequencies(60)
    places = to_places(eis_start.starts(f, impedance(circuits(200), f, "parallel"), "parallel")[:, :5])
    assert ((places > ENDS[0] - 1) & (places < ENDS[1] + 1)).all(axis=1).mean() > 0.8


def test_where_one_term_is_left_the_membranes_are_nearly_alike():
    # a clean mixture that needs a resistance below 0 in the second term
    f = default_frequencies(60)
    w = 2 * np.pi * f
    z = (500 / (1 + 1j * w * 1e-3) - 5 / (1 + 1j * w * 3e-2) + 20)[None]
    _, ra, rb, ca, cb, _ = eis_start.starts(f, z, "series")[0]
    assert ra == pytest.approx(rb) and abs(np.log(rb * cb / (ra * ca))) == pytest.approx(2 * np.log(eis_start.SPLIT))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_spectra_without_noise_are_nearly_met(topology):
    f, p = default_frequencies(60), circuits(200)
    z = impedance(p, f, topology)
    found = levenberg_marquardt(f, z, eis_start.starts(f, z, topology), topology, steps=10)
    assert (misses(found.parameters, f, z, topology) < 1e-4).mean() > 0.75


def test_a_series_resistance_is_taken_off_or_found():
    f, p, rs = default_frequencies(60), circuits(100), np.linspace(5, 200, 100)
    z = impedance(p, f, "parallel", rs)
    told = eis_start.starts(f, z, "parallel", rs)
    np.testing.assert_allclose(told[:, :5], eis_start.starts(f, impedance(p, f, "parallel"), "parallel")[:, :5],
                               rtol=1e-3)  # fmt: skip
    np.testing.assert_array_equal(told[:, 5], rs)
    asked = eis_start.starts(f, z, "parallel", None)
    assert (misses(asked[:, :5], f, z, "parallel", asked[:, 5]) < 0.01).mean() > 0.9
    seen = rs > 0.1 * open_shunt(p)[:, :2].sum(axis=1)  # else little of it shows
    assert np.median(np.abs(asked[seen, 5] / rs[seen] - 1)) < 0.01


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_starts_are_finite_and_within_reach_whatever_the_spectrum(topology):
    rng, f = np.random.default_rng(0), np.array([1.0, 7.0, 300.0, 2e3, 9e5])
    odd = rng.standard_normal((40, 5)) + 1j * rng.standard_normal((40, 5))
    flat = np.full((1, 5), 100 + 0j)
    one = (500 / (1 + 2j * np.pi * f * 1e-3))[None] + (50 if topology == "series" else 0)  # a single term: two alike
    found = eis_start.starts(f, np.concatenate([1e3 * odd, 1e-3 * odd, flat, one]), topology)
    assert ((found[:, :5] >= LOWEST / 10) & (found[:, :5] <= HIGHEST * 10)).all() and (found[:, 5] == 0).all()
    assert misses(found[-1:, :5], f, one, topology)[0] < 0.01


def test_a_fit_may_end_at_a_step_that_gains_little():
    f, p = default_frequencies(40), circuits(50)
    z = noisy(impedance(p, f, "series"), 0.01, np.random.default_rng(0))
    start = eis_start.starts(f, z, "series")
    long, short = (levenberg_marquardt(f, z, start, "series", small=small) for small in (1e-7, 0.1))
    assert (short.steps <= long.steps).all() and short.steps.mean() < long.steps.mean() / 2
    with pytest.raises(UsageError, match="are one resistance"):
        eis_start.starts(f, z, "series", None)
