"""The residual alarm: silent on noise of every size, raised by wrong circuits, right on the measured cells."""

import csv
from pathlib import Path

import numpy as np
import pytest

from domains.eis import default_frequencies, impedance
from domains.eis_alarm import CONTACTS, FALSE, INSTRUMENT, TOLERANCE, allowed_residual, residual_alarm
from domains.eis_fit import levenberg_marquardt
from domains.eis_noise import noisy

CELLS = Path(__file__).parents[2] / "examples" / "data" / "eis"
TRUTH = np.array([460.0, 4820.0, 2210.0, 3e-6, 1e-6])
FREQUENCIES = default_frequencies(30)


@pytest.mark.parametrize("topology", ["series", "parallel"])
@pytest.mark.parametrize("level", [0.001, 0.01, 0.05])
def test_the_true_circuit_raises_no_alarm_and_a_wrong_one_does(topology, level):
    z = impedance(np.broadcast_to(TRUTH, (500, 5)), FREQUENCIES, topology)
    measured = noisy(z, level, np.random.default_rng(0))
    assert not any(residual_alarm(FREQUENCIES, z[0], one, level).raised for one in measured)
    wrong = impedance(TRUTH * [2, 2, 1, 1, 1], FREQUENCIES, topology)
    assert all(residual_alarm(FREQUENCIES, wrong, one, level).raised for one in measured)


def test_noise_alone_raises_it_as_seldom_as_said():
    """The bound counts windows of three as if none shared points, so it is an upper bound, and no loose one."""
    z = np.full((100_000, 20), 100, np.complex128)
    off = np.abs(noisy(z, 1.0, np.random.default_rng(1)) - z) / 100
    worst = np.median(np.lib.stride_tricks.sliding_window_view(off, 3, axis=1), axis=-1).max(axis=1)
    share = np.mean(worst > allowed_residual(1.0, 20) - INSTRUMENT)
    assert 0.2 * FALSE < share < FALSE


def test_one_stray_point_is_no_alarm_and_two_neighbours_are():
    z = impedance(TRUTH, FREQUENCIES, "parallel")
    stray = z.copy()
    stray[10] *= 1.5
    assert not residual_alarm(FREQUENCIES, z, stray, 0.001).raised
    stray[11] *= 1.5
    alarm = residual_alarm(FREQUENCIES, z, stray, 0.001)
    assert alarm.raised and alarm.residual == pytest.approx(1 / 3) and alarm.frequency in FREQUENCIES[9:13]
    assert "ALARM" in alarm.sentence and "33.3% off" in alarm.sentence


def test_what_the_user_names_has_tolerances():
    plain = allowed_residual(0.01, 50)
    assert allowed_residual(0.01, 50, ["Ca", "Cb"]) == pytest.approx(plain + TOLERANCE)
    assert allowed_residual(0.01, 50, ["Rs"]) == pytest.approx(plain + CONTACTS)
    assert allowed_residual(0.0, 50) == INSTRUMENT


@pytest.mark.parametrize("level", [0.003, 0.011])
@pytest.mark.parametrize("given_rs", [False, True], ids=["Rs fitted", "Rs as recorded"])
def test_the_recorded_components_of_the_measured_cells(level, given_rs):
    """Seven cells are what their record says, four are not."""
    with (CELLS / "model_cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    raised, known = [], ["Rsh", "Ra", "Rb", "Ca", "Cb", *["Rs"] * given_rs]
    for row in rows:
        frequencies, real, imaginary = np.loadtxt(CELLS / "cells" / row["file"], delimiter=",", skiprows=1).T
        circuit = {name: float(row["Rs" if name == "Rsh" else name]) for name in known[:5]}  # Rs there: the shunt
        start, rs, z = (
            np.array([list(circuit.values())]),
            float(row["RsolA"]) + float(row["RsolB"]),
            real + 1j * imaginary,
        )
        if not given_rs:
            rs = levenberg_marquardt(frequencies, z, start, "parallel", known=circuit, rs=None).rs[0]
        model = impedance(start[0], frequencies, "parallel", rs)
        if residual_alarm(frequencies, model, z, level, known).raised:
            raised.append(row["file"][11:13])
    assert raised == ["02", "03", "09", "10"]
