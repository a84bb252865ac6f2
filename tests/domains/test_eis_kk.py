"""Kramers-Kronig: the linear fit against impedance.py's, circuits pass, drifts and anti-causal parts do not."""

import json
from pathlib import Path

import numpy as np
import pytest

from domains import eis
from domains.eis_kk import FEW, MOST, counts, fits, lin_kk, rc_fit
from domains.eis_noise import noisy
from domains.eis_spectrum import Spectrum
from tests.domains.measured import cells

FREQUENCIES = eis.default_frequencies(50)
REFERENCE = json.loads(Path(__file__).with_name("fixtures_kk.json").read_text())


def draw(count: int, seed: int = 0) -> np.ndarray:
    return eis.LOWEST * (eis.HIGHEST / eis.LOWEST) ** np.random.default_rng(seed).random((count, 5))


def drifting(parameters: np.ndarray, topology: str, share: float) -> np.ndarray:
    """Resistances grow by `share` while the sweep goes from the highest frequency to the lowest."""
    growth = 1 + share * np.linspace(1, 0, len(FREQUENCIES))[:, None] * np.array([1, 1, 1, 0, 0])
    return eis.impedance(parameters * growth, FREQUENCIES[:, None], topology)[:, 0]


@pytest.mark.parametrize("case", REFERENCE["cases"])
def test_the_fit_with_given_elements_is_that_of_impedance_py(case):
    frequencies = np.geomspace(*REFERENCE["frequencies"])
    z = eis.impedance(np.array(REFERENCE["parameters"]), frequencies, case["topology"])
    residuals, mu = rc_fit(frequencies, z, case["elements"], capacitor=case["capacitor"])
    assert mu == pytest.approx(case["mu"], abs=1e-5)
    np.testing.assert_allclose(residuals.real, case["real"], atol=1e-6)
    np.testing.assert_allclose(residuals.imag, case["imaginary"], atol=1e-6)


def test_what_the_model_holds_is_fitted_exactly():
    w = 2 * np.pi * FREQUENCIES
    tau = np.geomspace(1 / w.max(), 1 / w.min(), 5)
    r = np.array([100.0, 50.0, -20.0, 300.0, 10.0])
    z = 30 + (r / (1 + 1j * w[:, None] * tau)).sum(axis=1) + 1e-5j * w + 1 / (1j * w * 1e-3)
    residuals, mu = rc_fit(FREQUENCIES, z, 5, capacitor=True)
    assert np.abs(residuals).max() < 1e-9 and mu == pytest.approx(1 - 20 / 460)
    assert np.abs(rc_fit(FREQUENCIES, z, 5)[0]).max() > 0.05
    assert np.abs(rc_fit(FREQUENCIES, z, 5, inductor=False, capacitor=True)[0]).max() > 0.05


@pytest.mark.parametrize("topology", eis.TOPOLOGIES)
@pytest.mark.parametrize("level", [0.001, 0.01, 0.05])
def test_circuits_pass_and_their_noise_is_told(topology, level):
    z = noisy(eis.impedance(draw(40), FREQUENCIES, topology), level, np.random.default_rng(0))
    found = [lin_kk(Spectrum(FREQUENCIES, spectrum)) for spectrum in z]
    assert np.mean([check.passes for check in found]) >= 0.95
    assert np.median([check.error for check in found]) == pytest.approx(level, rel=0.5)
    assert all("obeys" in check.sentence for check in found if check.passes)


@pytest.mark.parametrize("topology, level, share", [("series", 0.01, 0.9), ("parallel", 0.002, 0.95)])
def test_a_drift_of_a_quarter_during_the_sweep_fails(topology, level, share):
    rng = np.random.default_rng(0)
    found = [lin_kk(Spectrum(FREQUENCIES, noisy(drifting(p, topology, 0.25), level, rng))) for p in draw(40, seed=1)]
    assert np.mean([not check.passes for check in found]) >= share
    assert all("breaks" in check.sentence for check in found if not check.passes)


def test_an_anti_causal_part_fails_and_its_causal_twin_passes():
    circuit = np.array([460.0, 4820.0, 2210.0, 3e-6, 6e-7])
    z, w = eis.impedance(circuit, FREQUENCIES, "series"), 2 * np.pi * FREQUENCIES
    rng = np.random.default_rng(0)
    for sign, passes in ((1, True), (-1, False)):  # a pole in the right half plane has the same real part
        whole = np.asarray(z + 1000 / (1 + sign * 1j * w * 1e-4), np.complex128)
        assert lin_kk(Spectrum(FREQUENCIES, noisy(whole, 0.01, rng))).passes == passes


def test_residuals_are_those_of_the_fit_that_is_told():
    z = noisy(eis.impedance(draw(1)[0], FREQUENCIES, "parallel"), 0.01, np.random.default_rng(0))
    found = lin_kk(Spectrum(FREQUENCIES, z))
    residuals, mu = rc_fit(FREQUENCIES, z, found.elements)
    np.testing.assert_allclose(found.residuals, residuals, rtol=0, atol=1e-8)
    assert found.mu == pytest.approx(mu, abs=1e-6) and mu <= 0.85 and found.elements in counts(MOST)
    freedom = 100 - found.elements - 2
    assert found.error == pytest.approx(np.sqrt(np.sum(np.abs(residuals) ** 2) / freedom))


@pytest.mark.parametrize("inductor, capacitor", [(True, False), (False, False), (False, True), (True, True)])
def test_fits_at_once_are_those_one_by_one_and_what_normal_equations_cannot_tell_is_left_to_them(inductor, capacitor):
    rng, seen = np.random.default_rng(0), []
    for decades, points in ((6, 50), (4, 120), (3, 9), (1, 40), (0.3, 30)):
        frequencies = np.geomspace(10, 10 ** (1 + decades), points)
        z = noisy(eis.impedance(draw(1)[0], frequencies, "series"), 0.01, rng)
        for error, structure, residuals, mu, elements in fits(frequencies, z, inductor, capacitor):
            want, ratio = rc_fit(frequencies, z, elements, inductor, capacitor)
            np.testing.assert_allclose(residuals, want, rtol=0, atol=1e-8)
            assert mu == pytest.approx(ratio, abs=1e-6)
            freedom = 2 * points - elements - 1 - inductor - capacitor
            assert error == pytest.approx(np.sqrt((np.abs(residuals) ** 2).sum() / max(freedom, 1)))
            parts = np.stack([residuals.real, residuals.imag])
            assert structure == pytest.approx(error / np.sqrt((np.diff(parts, 2) ** 2).mean() / 6))
            seen.append(elements <= FEW and (residuals != want).any())
    assert 0.3 < np.mean(seen) < 0.8  # the rest are one by one: many elements, or too few decades for them


def test_numbers_of_elements_end_where_they_should_and_few_points_are_no_error():
    assert counts(50)[:9] == [3, 4, 5, 6, 7, 8, 9, 10, 12] and counts(50)[-1] == 50 and counts(3) == [3]
    few = np.geomspace(1, 1e3, 5)
    assert lin_kk(Spectrum(few, eis.impedance(draw(1)[0], few, "series"))).elements <= 5


@pytest.mark.parametrize("spectrum", cells(), ids=lambda spectrum: spectrum.name)
def test_measured_cells_pass(spectrum):
    assert lin_kk(spectrum).passes
