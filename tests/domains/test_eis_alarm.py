"""The residual alarm: silent on noise of every size, raised by wrong circuits, right on the measured cells."""

import csv
from pathlib import Path

import numpy as np
import pytest

from domains.eis import default_frequencies, impedance
from domains.eis_alarm import OF_NOISE, allowed_residual, noise_of, residual_alarm
from domains.eis_noise import noisy

CELLS = Path(__file__).parents[2] / "examples" / "data" / "eis"
TRUTH = np.array([460.0, 4820.0, 2210.0, 3e-6, 1e-6])


@pytest.mark.parametrize("topology", ["series", "parallel"])
@pytest.mark.parametrize("level", [0.001, 0.01, 0.05])
def test_the_true_circuit_raises_no_alarm_and_a_wrong_one_does(topology, level):
    rng, frequencies = np.random.default_rng(0), default_frequencies(30)
    z = impedance(np.broadcast_to(TRUTH, (2000, 5)), frequencies, topology)
    measured = noisy(z, level, rng)
    assert not any(residual_alarm(z[0], one, level).raised for one in measured)
    wrong = impedance(TRUTH * [1, 1.5, 1, 1, 1] if topology == "series" else TRUTH * [1.3, 1, 1, 1, 1],
                      frequencies, topology)  # fmt: skip
    raised = [residual_alarm(wrong, one, level).raised for one in measured]
    assert np.mean(raised) > 0.99 or level == 0.05  # 5% noise hides it


def test_the_quantile_of_noise_alone_is_the_one_expected():
    z = np.full(200_000, 100, np.complex128)
    alarm = residual_alarm(z, noisy(z, 0.02, np.random.default_rng(1)), 0.02)
    assert alarm.residual == pytest.approx(OF_NOISE * 0.02, rel=0.01) and not alarm.raised
    assert alarm.allowed == allowed_residual(0.02) < allowed_residual(0.02, known=True)


def test_the_sentence_has_both_numbers():
    z = np.full(10, 100, np.complex128)
    assert "90% of the points lie within 20.00% of the circuit, more than the 1.00%" in residual_alarm(
        1.2 * z, z, 0.0).sentence  # fmt: skip
    assert "within the 1.00% allowed." in residual_alarm(1.005 * z, z, 0.0).sentence


def test_noise_comes_back_from_the_residuals_of_a_linear_fit():
    rng = np.random.default_rng(2)
    base = np.vander(np.linspace(-1, 1, 60), 8) + 0j
    levels = []
    for _ in range(300):
        noise = 0.01 * (rng.standard_normal(60) + 1j * rng.standard_normal(60))
        both = np.concatenate([base.real, base.imag]), np.concatenate([noise.real, noise.imag])
        left = both[1] - both[0] @ np.linalg.lstsq(*both, rcond=None)[0]
        levels.append(noise_of(left[:60] + 1j * left[60:], 8))
    assert np.mean(levels) == pytest.approx(0.01, rel=0.01)


def test_the_recorded_components_of_the_measured_cells():
    """Seven cells are what their record says, four are not; so it is with noise of half a percent as with 1.5."""
    with (CELLS / "model_cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    for level in (0.005, 0.015):
        raised = []
        for row in rows:
            frequencies, real, imaginary = np.loadtxt(CELLS / row["file"], delimiter=",", skiprows=1).T
            circuit = np.array([float(row[name]) for name in ("Rs", "Ra", "Rb", "Ca", "Cb")])  # Rs there: the shunt
            model = impedance(circuit, frequencies, "parallel", float(row["RsolA"]) + float(row["RsolB"]))
            if residual_alarm(model, real + 1j * imaginary, level, known=True).raised:
                raised.append(row["file"][11:13])
        assert raised == ["02", "03", "09", "10"]
