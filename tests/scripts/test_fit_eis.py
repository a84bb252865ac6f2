"""Fits of instruments' files without a network: values of known circuits, what is not determined, groups, mistakes."""

import csv
import json

import numpy as np
import pytest

from domains import eis_start
from domains.eis import NAMES, default_frequencies, impedance, invariants
from domains.eis_noise import noisy
from scripts import fit_eis

TRUTH = np.array([460.0, 1200.0, 700.0, 3e-7, 5e-6])
OTHER = np.array([200.0, 3000.0, 500.0, 1e-6, 2e-6])
LARGER = TRUTH * [2, 2, 2, 1, 1]


def write(path, parameters, topology, rs=0.0, points=40):
    """A table of a spectrum with .2% noise."""
    frequencies = default_frequencies(points)
    z = noisy(impedance(parameters, frequencies, topology, rs), 0.002, np.random.default_rng(points))
    rows = [f"{f:.6g},{one.real:.8g},{one.imag:.8g}" for f, one in zip(frequencies, z, strict=True)]
    path.write_text("\n".join(["frequency_hz,z_real_ohm,z_imag_ohm", *rows]) + "\n")


@pytest.fixture
def folder(tmp_path):
    """Three spectra of parallel circuits behind 30 ohm, the second of other frequencies than the others."""
    made = tmp_path / "spectra"
    made.mkdir()
    for name, parameters, points in (("a", TRUTH, 40), ("b", OTHER, 50), ("c", LARGER, 40)):
        write(made / f"{name}.csv", parameters, "parallel", 30.0, points)
    return made


def test_a_folder_of_parallel_circuits(folder, tmp_path, capsys, monkeypatch):
    counts, fit = [], eis_start.fit

    def counted(frequencies, z, *others):
        counts.append(len(z))
        return fit(frequencies, z, *others)

    monkeypatch.setattr(eis_start, "fit", counted)
    (folder / "notes.txt").write_text("no spectrum\n")
    out = tmp_path / "fits.json"
    assert fit_eis.main([str(folder), f"out={out}"]) == 2
    assert sorted(counts) == [1, 2]  # spectra of the same frequencies together
    printed, told = capsys.readouterr()
    assert "1 of 4 files are no spectra" in told and "notes.txt" in printed and "ALARM" not in printed
    records = json.loads(out.read_text())
    assert [one["file"] for one in records] == ["a.csv", "b.csv", "c.csv"]
    for one, parameters in zip(records, (TRUTH, OTHER, LARGER), strict=True):
        quantities = one["quantities"]
        for name, value in invariants(parameters, "parallel").items():
            assert quantities[name]["determined"]
            deviation = quantities[name]["deviation"]
            assert deviation < 0.3 and abs(np.log(quantities[name]["value"] / value)) < 4 * deviation, name
        assert quantities["Rs"]["value"] == pytest.approx(30, rel=0.05) and one["circuit"]["Rs"] > 0
        assert not quantities["Rsh"]["determined"] and set(one["circuit"]) == {*NAMES, "Rs"}
        assert one["residual"] == pytest.approx(0.002 * np.sqrt(np.pi / 2), rel=0.3)
        assert not one["alarm"]["raised"]
    header, first, *_ = [line for line in printed.splitlines() if "notes.txt" not in line]
    assert header.split()[:2] == ["Rsh", "Ra"] and first.split()[:2] == ["a", "-"]


def test_series_circuits_and_a_resistance_that_is_known(tmp_path, capsys):
    write(tmp_path / "s.csv", TRUTH, "series")
    assert fit_eis.main([str(tmp_path / "s.csv"), "topology=series", f"out={tmp_path / 'fits.csv'}"]) == 0
    (row,) = csv.DictReader((tmp_path / "fits.csv").open())
    found = np.array([float(row[f"circuit.{name}"]) for name in NAMES])
    np.testing.assert_allclose(found, TRUTH, rtol=0.05)  # canonical: the quicker membrane first
    assert row["circuit.Rs"] == "0.0" and row["quantities.Rsh.determined"] == "True"
    assert fit_eis.main([str(tmp_path / "s.csv"), "topology=series", "rs=100"]) == 0
    shown = capsys.readouterr().out.splitlines()[-1].split()
    assert shown[0] == "s" and float(shown[1]) == pytest.approx(360, rel=0.05)


def test_a_circuit_of_the_other_kind_raises_the_alarm(tmp_path, capsys):
    frequencies = default_frequencies(40)
    z = 100 + 500 / (1 + (2j * np.pi * frequencies * 1e-3) ** 0.6)  # a depressed arc
    rows = [f"{f:.6g},{one.real:.8g},{one.imag:.8g}" for f, one in zip(frequencies, z, strict=True)]
    (tmp_path / "arc.csv").write_text("\n".join(["frequency_hz,z_real_ohm,z_imag_ohm", *rows]) + "\n")
    assert fit_eis.main([str(tmp_path / "arc.csv"), "topology=series"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("ALARM: not explained")


MISTAKES = {"topology=ring": "series or", "out=fits.txt": "ends in .json or .csv", "rs=-1": "0 or above, got -1",
            "polish=true": "no key 'polish'"}  # fmt: skip


@pytest.mark.parametrize("told", list(MISTAKES))
def test_mistakes(told, folder, capsys):
    assert fit_eis.main([str(folder), told]) == 2
    assert MISTAKES[told] in capsys.readouterr().err
    assert fit_eis.main([told]) == 2
    assert "comes first, before key=value" in capsys.readouterr().err
