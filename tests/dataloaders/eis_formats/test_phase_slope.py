"""The law of phase and slope: circuits keep it under noise; columns that are none of what they are called break it."""

import numpy as np
import pytest

from dataloaders.eis_formats.phase_slope import check_phase, error
from domains.eis import impedance
from domains.eis_truths import from_unit
from runtime.errors import UsageError


def spectra(count: int, noise: float = 0.05):
    """Frequencies and noisy impedances of circuits of the continuous prior, both topologies, 5 to 150 points."""
    rng = np.random.default_rng(0)
    for i in range(count):
        points = rng.integers(5, 150)
        f = np.geomspace(10 ** rng.uniform(-2, 1), 10 ** rng.uniform(4, 7), points)
        circuit = from_unit(rng.uniform(-0.5, 11.5, 5) / 11)
        z = impedance(circuit, f, ("series", "parallel")[i % 2], 10 ** rng.uniform(-1, 2.5))
        yield f, z + np.abs(z) * noise * (rng.standard_normal(points) + 1j * rng.standard_normal(points))


def refused(f: np.ndarray, z: np.ndarray) -> str:
    try:
        check_phase(f, z)
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("power", [-1.0, -0.5, 0.0])
def test_a_power_of_the_frequency_keeps_the_law_exactly(power):
    f = np.geomspace(1.0, 1e4, 30)
    assert error(f, (2j * np.pi * f) ** power) == pytest.approx(0, abs=1e-9)
    assert error(f, ((2j * np.pi * f) ** power).conj()) == pytest.approx(-180 * power, abs=1e-9)


def test_no_circuit_is_refused_and_exchanged_columns_are():
    swapped = in_kohm = 0
    for f, z in spectra(500):
        assert not refused(f, z)
        swapped += "Z' and -Z'' swapped" in refused(f, -z.imag - 1j * z.real)
        in_kohm += bool(refused(f, z.real / 1e3 + 1j * z.imag))
    assert swapped > 490 and in_kohm > 480


def test_a_modulus_under_the_name_of_the_real_part_is_found_where_phases_are_large():
    said = [refused(f, np.abs(z) + 1j * z.imag) for f, z in spectra(300) if np.angle(z).min() < -np.pi / 3]
    assert len(said) > 80 and np.mean(["Z' for |Z| beside" in one for one in said]) > 0.8
    far = sum(1 for f, z in spectra(300, 0.0) if np.angle(z).min() > -np.pi / 9 and refused(f, np.abs(z) + 1j * z.imag))
    assert far == 0  # it hardly differs from Z'


def test_a_frequency_under_the_name_of_the_real_part_is_found():
    said = [refused(z.real, f + 1j * z.imag) for f, z in spectra(300, noise=0.0) if z.real[0] > 3 * z.real[-1]]
    assert len(said) > 100 and np.mean(["for the frequency" in one for one in said]) > 0.9


@pytest.mark.parametrize(("points", "of_modulus", "of_phase"), [(40, 0.05, 0.002), (12, 0.01, 0.15), (12, 0.1, 0.1)])
def test_a_resistors_noise_is_no_reason(points, of_modulus, of_phase):
    rng = np.random.default_rng(0)
    for _ in range(200):
        z = 100 * (1 + of_modulus * rng.standard_normal(points)) * np.exp(1j * of_phase * rng.standard_normal(points))
        assert not refused(np.geomspace(1.0, 1e5, points), z)
