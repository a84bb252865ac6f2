"""Spectra: what is taken, sorted and refused, and bounds of the prior's circuits against drawn ones."""

import re

import numpy as np
import pytest

from domains import eis
from domains.eis_noise import noisy
from domains.eis_spectrum import HALF_CELL, HIGH, LOW, Spectrum, modulus_bounds, outside
from runtime.errors import UsageError
from tests.domains.measured import cells

FREQUENCIES = eis.default_frequencies(20)
CIRCUIT = np.array([460.0, 4820.0, 2210.0, 3e-6, 1e-6])
Z = eis.impedance(CIRCUIT, FREQUENCIES, "parallel")


def changed(at: int, value: complex) -> eis.Impedance:
    z = Z.copy()
    z[at] = value
    return z


def test_points_are_sorted_by_frequency_and_stay_together():
    order = np.random.default_rng(0).permutation(20)
    found = Spectrum(FREQUENCIES[order], Z[order], "cell")
    np.testing.assert_array_equal(found.frequencies, FREQUENCIES)
    np.testing.assert_array_equal(found.z, Z)
    assert found.name == "cell" and found.z.dtype == np.complex128 and not found.z.flags.writeable
    assert Z.flags.writeable  # the caller's arrays stay as they were


@pytest.mark.parametrize(
    "frequencies, z, sentence",
    [
        (FREQUENCIES[:3], Z[:3], "at least 5 points, got 3"),
        (FREQUENCIES[:-1], Z, r"shapes \(19,\) of frequencies and \(20,\)"),
        (FREQUENCIES[None], Z[None], "shapes"),
        (FREQUENCIES, changed(2, np.nan), "finite numbers, got .* in point 3 of 20"),
        (FREQUENCIES, changed(2, complex(1, np.inf)), "finite"),
        (FREQUENCIES - 1, Z, "frequencies above 0 Hz, got 0"),
        (FREQUENCIES, changed(4, 0), "other than 0 ohm, got 0 at"),
        (np.r_[FREQUENCIES, FREQUENCIES], np.r_[Z, Z], "got 1 Hz 2 times: give each sweep"),
        (FREQUENCIES, Z.conj(), "may hold -Z''"),
    ],
)
def test_what_is_no_spectrum_is_refused_in_a_sentence(frequencies, z, sentence):
    with pytest.raises(UsageError, match=sentence):
        Spectrum(frequencies, z, "cell")


def test_a_few_inductive_points_and_noise_around_zero_are_kept():
    tail = Z + 2j * np.pi * FREQUENCIES * 2e-4  # a cable of 0.2 mH turns the last points
    assert 1 < (tail.imag > 0).sum() < 8
    Spectrum(FREQUENCIES, tail)
    Spectrum(FREQUENCIES, 100 + 2j * np.pi * FREQUENCIES * 3e-5)  # a resistor behind it
    cell = 10 + Z / 20 + 2j * np.pi * FREQUENCIES * 2e-5  # steep inductive points, and a larger number of flat ones
    assert cell.imag.sum() > 0 and np.sum(cell.imag / np.abs(cell)) > 0
    Spectrum(FREQUENCIES, cell)


def test_noise_is_not_taken_for_a_wrong_sign_and_a_wrong_sign_not_for_noise():
    rng = np.random.default_rng(0)
    parameters = eis.LOWEST * (eis.HIGHEST / eis.LOWEST) ** rng.random((400, 5))
    refused = {}
    for topology in eis.TOPOLOGIES:
        z = noisy(eis.impedance(parameters, FREQUENCIES, topology), 0.05, rng)
        for name, spectra in (("right", z), ("wrong", z.conj())):
            refused[topology, name] = np.mean([not taken(spectrum) for spectrum in spectra])
    assert max(refused["series", "right"], refused["parallel", "right"]) <= 0.0025
    assert refused["parallel", "wrong"] == 1 and refused["series", "wrong"] > 0.75  # the rest is a resistor in noise


def taken(z: np.ndarray) -> bool:
    try:
        Spectrum(FREQUENCIES, z)
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("topology", eis.TOPOLOGIES)
def test_bounds_hold_every_circuit_of_the_prior_and_are_within_a_factor_of_two(topology):
    rng = np.random.default_rng(0)
    ends = rng.random((20000, 5))
    ends = np.where(rng.random((20000, 1)) < 0.5, ends, np.rint(ends))  # half of them corners
    low, high = eis.LOWEST / HALF_CELL, eis.HIGHEST * HALF_CELL
    size = np.abs(eis.impedance(low * (high / low) ** ends, FREQUENCIES, topology))
    least, most = modulus_bounds(FREQUENCIES, topology)
    assert (size >= least * (1 - 1e-12)).all() and (size <= most * (1 + 1e-12)).all()
    assert (size.min(axis=0) < 2 * least).all() and (size.max(axis=0) > most / 2).all()
    above = np.abs(eis.impedance(high, FREQUENCIES, topology, rs=300.0))
    assert (above <= modulus_bounds(FREQUENCIES, topology, rs=300.0)[1]).all()


@pytest.mark.parametrize("rsh", [LOW[0], HIGH[0]])
def test_noise_at_the_priors_ends_is_no_reason_to_refuse(rsh):
    circuit = np.array([rsh, LOW[1], LOW[2], HIGH[3], HIGH[4]])  # Rsh alone at most frequencies
    z = eis.impedance(circuit, FREQUENCIES, "series")
    for seed in range(20):
        seen = noisy(z, 0.05, np.random.default_rng(seed))
        assert outside(Spectrum(FREQUENCIES, seen), "series") is None
    least, largest = modulus_bounds(FREQUENCIES, "series")
    assert "is more than" in str(outside(Spectrum(FREQUENCIES, 1.12 * largest), "series"))
    assert "is less than" in str(outside(Spectrum(FREQUENCIES, least / 1.12), "series"))


@pytest.mark.parametrize(
    "spectrum, options, sentence",
    [
        (Spectrum(FREQUENCIES, Z), {"low_hz": 10.0}, "from 1 to 1e.06 Hz, the predictor knows 10 to"),
        (Spectrum(FREQUENCIES, Z), {"fewest": 30}, "20 points, the predictor takes 30 to 200"),
        (Spectrum(FREQUENCIES, Z * 1000), {}, r"\|Z\| = .* is more than the .* units"),
        (Spectrum(FREQUENCIES, Z / 1000), {}, "is less than"),
        (Spectrum(FREQUENCIES, -Z.real + 1j * Z.imag), {}, "real part is not above 0 in 20 of 20"),
    ],
)
def test_spectra_that_the_prior_cannot_give_come_with_the_reason(spectrum, options, sentence):
    assert outside(Spectrum(FREQUENCIES, Z), "parallel") is None
    reason = outside(spectrum, "parallel", **options)
    assert reason is not None and re.search(sentence, reason)


def test_one_outlier_is_no_reason():
    assert outside(Spectrum(FREQUENCIES, changed(3, 1e6 - 1j)), "parallel") is None


@pytest.mark.parametrize("spectrum", cells(), ids=lambda spectrum: spectrum.name)
def test_measured_cells_are_taken(spectrum):
    assert outside(spectrum, "parallel", rs=300.0) is None


def test_noise_about_zero_on_either_part_is_no_reason():
    """The quick end of a parallel circuit is a capacitor, a large Rsh before small membranes a resistor."""
    frequencies, rng = eis.default_frequencies(60), np.random.default_rng(0)
    resistive = np.array([9e3, 20.0, 30.0, 5e-5, 5e-5])
    for topology, circuit in (("parallel", CIRCUIT), ("series", resistive)):
        for _ in range(50):
            z = noisy(eis.impedance(circuit, frequencies, topology), 0.05, rng)
            assert outside(Spectrum(frequencies, z), topology) is None
