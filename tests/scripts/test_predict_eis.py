"""From an instrument's file to circuits, on measured cells of known components and on bad files.

The network is a small one with random weights: the exact likelihood decides, so what is right does not depend on it.
"""

import csv
import json

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from dataloaders.eis_files import read
from domains.eis import NAMES, default_frequencies, impedance
from domains.eis_noise import noisy
from evaluation.eis_prediction import Circuit
from evaluation.eis_predictor import EISParameterCompleter, ProbabilisticEISPredictor
from examples import eis_model_cells
from models.eis_predictor import EISPredictor
from runtime.errors import UsageError
from scripts import eis_models, predict_eis
from scripts.eis_analysis import candidates
from scripts.eis_report import report, wrapped

CELLS = eis_model_cells.FOLDER / "cells"
TRUTH = np.array([460.0, 1200.0, 700.0, 3e-7, 5e-6])


def completer(topology):
    mx.random.seed(0)
    model = EISPredictor(shape=[50, 4], hidden=32, width=16, depth=1)
    model.eval()
    return EISParameterCompleter(ProbabilisticEISPredictor(model, topology, rs=300.0 if topology == "parallel" else 0))


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    monkeypatch.setattr(predict_eis, "load", lambda name, device: completer(name))


def write(path, topology="parallel", rs=0.0, level=0.002, minus=False, seed=0, kind="modulus"):
    """A table of a noisy spectrum of TRUTH."""
    frequencies = default_frequencies(40)
    z = noisy(impedance(TRUTH, frequencies, topology, rs), level, np.random.default_rng(seed), kind)
    z = z.conj() if minus else z
    rows = "\n".join(f"{f:.6g},{one.real:.6g},{one.imag:.6g}" for f, one in zip(frequencies, z, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"frequency_hz,z_real_ohm,z_imag_ohm\n{rows}\n")
    return str(path)


def run(*arguments):
    return predict_eis.main([*map(str, arguments), "device=cpu"])


def stored(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def cells():
    return eis_model_cells.evaluate(completer("parallel"))


def test_capacitances_of_measured_cells_are_as_near_as_a_fit_from_the_truth(cells):
    errors, fit = (np.array([row[of] for row in cells]) for of in ("errors", "fit"))
    assert (np.median(errors, axis=0) <= [0.030, 0.037]).all()
    assert (errors < eis_model_cells.HALF_BIN).all(axis=1).mean() >= 0.62
    explained = [not row["alarms"][0] for row in cells]
    np.testing.assert_allclose(errors[explained], fit[explained], atol=0.01)
    assert errors[explained].max() < 0.06


def test_cells_that_their_record_does_not_explain_raise_the_alarm(cells):
    """Of the four, two leave any Ca and Cb of the prior; the other two are well explained by others than recorded."""
    alarmed = [{row["cell"][11:13] for row in cells if row["alarms"][case]} for case in range(3)]
    assert alarmed == [{"02", "03", "09", "10"}, {"02", "03"}, set()]


def test_all_components_known_are_checked_by_the_same_command(tmp_path, capsys):
    record = eis_model_cells.FOLDER / "recorded.csv"
    assert run(CELLS, f"known={record}", f"out={tmp_path / 'r.json'}") == 0
    alarmed = [one for one in stored(tmp_path / "r.json") if one["alarm"]["raised"]]
    assert [one["file"][11:13] for one in alarmed] == ["02", "03", "09", "10"]
    assert all(one["verdict"]["sentence"].startswith("If the circuit were right") for one in alarmed)
    assert capsys.readouterr().out.count("ALARM") == 4


def test_the_shipped_network_does_it_right_after_install(tmp_path, monkeypatch):
    monkeypatch.setattr(predict_eis, "load", eis_models.load)
    known = [f"known.{key}={value}" for key, value in eis_model_cells.recorded()["model_cell_06.csv"].items()
             if key[0] == "R"]  # fmt: skip
    assert run(CELLS / "model_cell_06.csv", *known, f"out={tmp_path / 'r.json'}") == 0
    (record,) = stored(tmp_path / "r.json")
    assert record["quantities"]["Ca"]["best"] == pytest.approx(1.07e-6, rel=0.06)
    assert record["quantities"]["Cb"]["best"] == pytest.approx(1.01e-6, rel=0.06)
    assert record["effective"] > 300


def test_an_unknown_shunt_is_not_determined(cells, capsys):
    assert not any(row["rsh"] for row in cells)
    assert run(CELLS / "model_cell_05.csv") == 0
    text = capsys.readouterr().out
    (row,) = [line for line in text.splitlines() if line.startswith("  Rsh ")]
    assert row.endswith("not determined") and "Rsh is not determined" in " ".join(text.split())
    assert "  TER " in text and "ALARM" not in text


def test_a_folder_gives_one_file_a_row_each_and_pictures(tmp_path, capsys):
    for seed in range(2):
        write(tmp_path / "in" / f"s{seed}.csv", rs=20.0, seed=seed)
    (tmp_path / "in" / "bad.csv").write_text("frequency_hz,z_real_ohm,z_imag_ohm\n1,2,-3\n")
    out, picture = tmp_path / "out" / "r.csv", tmp_path / "out" / "p.png"
    status = run(tmp_path / "in", f"out={out}", f"picture={picture}", "known.Rsh=460", "initial_guess=true")
    said = capsys.readouterr()
    assert status == 2 and "1 of 3 files or spectra had no answer" in said.err and "bad.csv: " in said.out
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["s0.csv", "s1.csv"]
    for row in rows:
        assert float(row["quantities.Ra.best"]) == pytest.approx(TRUTH[1], rel=0.1)
        assert row["quantities.Rsh.known"] == "True" and row["quantities.Ca.determined"] == "True"
        assert row["impedance_py.0.circuit"] == "R0-p(R1,p(R2,C1)-p(R3,C2))"
    assert said.out.count("CustomCircuit(circuit='R0-p(R1,p(R2,C1)-p(R3,C2))', initial_guess=[") >= 2
    for path in (picture, tmp_path / "out" / "p" / "s0.png", tmp_path / "out" / "p" / "s1.png"):
        with Image.open(path) as file:
            assert min(file.size) > 200


def test_the_record_has_the_circuit_and_its_uncertainty(tmp_path):
    source, out = write(tmp_path / "s.csv", rs=20.0), tmp_path / "r.json"
    assert run(source, f"out={out}", "known.Rsh=460", "known.Rs=20", "top_k=4") == 0
    (record,) = stored(out)
    best = [record["quantities"][name]["best"] for name in NAMES]
    np.testing.assert_allclose(best, TRUTH, rtol=0.05)
    for name, true in zip(NAMES[1:], TRUTH[1:], strict=True):
        low, high = record["quantities"][name]["interval_90"]
        assert low / 1.03 < true < high * 1.03 and record["quantities"][name]["determined"]
    assert record["noise"] == pytest.approx(0.002, rel=0.3) and record["kramers_kronig"]["passes"]
    assert not record["alarm"]["raised"] and 1 <= len(record["circuits"]) <= 4
    assert sum(record["marginals"]["Ra"]) == pytest.approx(1)
    assert record["quantities"]["Rs"] == {"best": 20.0, "known": True}


def test_a_fit_moves_circuits_onto_the_spectrum_makes_equal_ones_one_and_moves_nothing_known(tmp_path):
    (spectrum,) = read(write(tmp_path / "s.csv", rs=20.0))
    known = {"Rsh": 460.0, "Rs": 20.0}
    prediction = completer("parallel").predict_missing_parameters(known, spectrum)
    near = [dict(zip(NAMES, TRUTH * [1, a, a, a, a], strict=True)) | {"Rs": 20.0} for a in (0.7, 1.2)]
    far = dict(zip(NAMES, [460.0, 1e4, 1e4, 5e-5, 5e-5], strict=True)) | {"Rs": 20.0}
    prediction.circuits = [
        Circuit(values, chance) for values, chance in zip([far, *near], (0.1, 0.6, 0.3), strict=True)
    ]
    plain = candidates(spectrum, prediction, known, polish=False)
    assert [one.probability for one in plain] == [0.6, 0.3, 0.1]
    np.testing.assert_array_equal(plain[0].parameters, TRUTH * [1, 0.7, 0.7, 0.7, 0.7])
    moved = candidates(spectrum, prediction, known, polish=True)
    assert moved[0].probability >= 0.9 - 1e-9 and moved[0].rs == 20.0 and moved[0].parameters[0] == 460.0
    assert moved[0].residual == pytest.approx(0.002 * np.sqrt(np.pi / 2), rel=0.3)
    assert plain[0].residual > 10 * moved[0].residual
    np.testing.assert_allclose(moved[0].parameters, TRUTH, rtol=0.05)
    np.testing.assert_allclose(moved[0].z, impedance(TRUTH, spectrum.frequencies, "parallel", 20.0), rtol=0.01)


def test_without_a_fit_the_circuits_are_the_posteriors(tmp_path):
    source, out = write(tmp_path / "s.csv"), tmp_path / "r.json"
    assert run(source, f"out={out}", "polish=false", "top_k=3") == 0
    (record,) = stored(out)
    expected = completer("parallel").predict_missing_parameters({}, read(source)[0], top_k=3).circuits
    assert [[one[name] for name in NAMES] for one in record["circuits"]] == [
        [one.values[name] for name in NAMES] for one in expected]  # fmt: skip


def test_series_circuits_and_a_given_noise(tmp_path):
    source, out = write(tmp_path / "s.csv", "series"), tmp_path / "r.json"
    assert run(source, "topology=series", "noise=0.002", f"out={out}") == 0
    (record,) = stored(out)
    assert record["noise"] == 0.002 and record["noise_from"] == "as given" and record["topology"] == "series"
    np.testing.assert_allclose([record["quantities"][name]["best"] for name in NAMES], TRUTH, rtol=0.05)
    assert all(record["quantities"][name]["determined"] for name in NAMES)


def test_a_table_tells_what_is_known_of_each_file(tmp_path, capsys):
    for name in ("s0.csv", "s1.csv"):
        write(tmp_path / "in" / name)
    (tmp_path / "known.csv").write_text("file,Rsh\ns0.csv,460\n")
    out = tmp_path / "r.json"
    assert run(tmp_path / "in", f"known={tmp_path / 'known.csv'}", f"out={out}", "known.Rs=0") == 2
    assert "s1.csv: the table of known components has no row for it" in capsys.readouterr().out
    (record,) = stored(out)
    assert record["file"] == "s0.csv" and record["known"] == {"Rsh": 460.0, "Rs": 0.0}


def test_a_series_is_followed(tmp_path, capsys):
    frequencies = default_frequencies(40)
    for step, (ca, cb) in enumerate(((1e-6, 2e-5), (2e-6, 1e-5))):  # the quicker membrane becomes the slower one
        z = impedance(np.array([460, 2000, 200, ca, cb]), frequencies, "series")
        rows = "\n".join(f"{f:.6g},{one.real:.6g},{one.imag:.6g}" for f, one in zip(frequencies, z, strict=True))
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"s{step}.csv").write_text(f"frequency_hz,z_real_ohm,z_imag_ohm\n{rows}\n")
    ra = {}
    for series in ("false", "true"):
        arguments = [f"series={series}", f"out={tmp_path / 'r.json'}", "topology=series"]
        assert run(tmp_path / "in", *arguments) == 0
        ra[series] = [record["quantities"]["Ra"]["best"] for record in stored(tmp_path / "r.json")]
    np.testing.assert_allclose(ra["true"], 2000, rtol=0.01)
    np.testing.assert_allclose(ra["false"], [2000, 200], rtol=0.01)
    assert "follows the series" in capsys.readouterr().out


def test_a_drift_during_the_sweep_is_told(tmp_path):
    frequencies = default_frequencies(40)
    drift = np.linspace(1.3, 1, 40)[:, None]  # 30% in the sweep, which begins at high frequencies
    z = np.array([impedance(TRUTH * share, np.array([f]), "parallel")[0]
                  for share, f in zip(drift, frequencies, strict=True)])  # fmt: skip
    rows = "\n".join(f"{f:.6g},{one.real:.6g},{one.imag:.6g}" for f, one in zip(frequencies, z, strict=True))
    (tmp_path / "s.csv").write_text(f"frequency_hz,z_real_ohm,z_imag_ohm\n{rows}\n")
    assert run(tmp_path / "s.csv", f"out={tmp_path / 'r.json'}") == 0
    (record,) = stored(tmp_path / "r.json")
    assert (
        not record["kramers_kronig"]["passes"] and "breaks the Kramers-Kronig" in record["kramers_kronig"]["sentence"]
    )
    assert record["noise"] < 0.01


def test_equal_known_resistances_leave_two_orders(tmp_path):
    records = []
    for name in ("model_cell_08.csv", "model_cell_06.csv"):
        known = [f"known.{key}={value}" for key, value in eis_model_cells.recorded()[name].items() if key[0] == "R"]
        assert run(CELLS / name, *known, f"out={tmp_path / 'r.json'}") == 0
        records += stored(tmp_path / "r.json")
    both, one = records
    assert "differ by less than 2%" in " ".join(both["notes"]) and "differ" not in " ".join(one["notes"])
    assert not both["quantities"]["Ca"]["determined"] and one["quantities"]["Ca"]["determined"]
    first, second = both["circuits"][:2]
    assert first["Ca"] == pytest.approx(second["Cb"], rel=0.05) and first["Cb"] == pytest.approx(second["Ca"], rel=0.05)
    assert "Near the best circuit" in both["verdict"]["sentence"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.csv"], "nowhere.csv"),
        (["top_k=3"], "the file or folder of spectra comes first.*got 'top_k=3'"),
        (["{file}", "top_k=0"], "top_k must be at least 1, got 0"),
        (["{file}", "topk=3"], "no key 'topk'; nearest: top_k"),
        (["{file}", "known.Rhs=3"], "no parameter 'Rhs'"),
        (["{file}", "known.Rsh=3"], "Rsh must be a number from 7.31 to 1.37e.04 ohm, got 3"),
        (["{file}", "noise=2"], "noise must be auto or a share of .* got '2'"),
        (["{file}", "noise=loud"], "noise must be auto or a share of .* got 'loud'"),
        (["{file}", "noise=phase:loud"], "one of modulus, proportional, phase, likeliest, .* got 'phase:loud'"),
        (["{file}", "out=r.txt"], r"out must be a file name that ends in .json or .csv, got 'r.txt'"),
        (["{file}", "picture=p.gif"], "picture must be a file name .*got 'p.gif'"),
        (["{file}", "topology=ladder"], "topology must be series or parallel, got 'ladder'"),
        (["{file}", "model=series", "topology=parallel"], "model=series is of series circuits, got topology=parallel"),
        (["{folder}", "out={folder}/r.json"], "out=.*r.json lies among the spectra"),
        (["{minus}"], "needs negative imaginary parts"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(arguments, said, tmp_path, capsys):
    places = {"file": write(tmp_path / "in" / "s.csv"), "minus": write(tmp_path / "m.csv", minus=True),
              "folder": tmp_path / "in"}  # fmt: skip
    assert run(*(text.format(**places) for text in arguments)) == 2
    captured = capsys.readouterr()
    with pytest.raises(UsageError, match=said):
        raise UsageError(captured.err + captured.out)
    assert "Traceback" not in captured.err and len(captured.err.strip().splitlines()) == 1


def test_noise_is_a_level_a_kind_or_both():
    texts = ("auto", "0.01", "phase", "likeliest", "proportional:0.02", "modulus:auto")
    assert [predict_eis.noise(text) for text in texts] == [
        (None, None), (0.01, None), (None, "phase"), (None, "likeliest"), (0.02, "proportional"), (None, "modulus")
    ]  # fmt: skip


def test_the_likeliest_kind_of_noise_is_taken_and_told(tmp_path, capsys):
    source, out = write(tmp_path / "s.csv", rs=20.0, kind="phase", level=0.01), tmp_path / "r.json"
    records = []
    for asked in ("likeliest", "auto", "phase:0.01"):
        assert run(source, f"noise={asked}", "known.Rsh=460", "known.Ra=1200", f"out={out}") == 0
        records += stored(out)
    best, usual, given = (record["noise_kind"] for record in records)
    assert (best["kind"], best["from"]) == ("phase", "likeliest of three")
    assert best["level"] == pytest.approx(0.01, rel=0.3)
    evidence = best["log_evidence"]
    assert evidence.keys() == {"modulus", "proportional", "phase"} and max(evidence, key=evidence.get) == "phase"
    assert (usual["kind"], usual["from"], given["kind"], given["from"]) == ("modulus", "default", "phase", "as given")
    assert "log_evidence" not in usual and records[2]["noise"] == 0.01
    said = " ".join(capsys.readouterr().out.split())
    assert "Noise is likeliest to be phase" in said and "Noise is taken as phase" in said
    assert "Noise is taken as modulus" not in said
    widths = [np.ptp(np.log(record["quantities"]["Rb"]["interval_90"])) for record in records]
    assert widths[0] < 0.5 * widths[1]  # ln |Z| is ten times better than the angle
    np.testing.assert_allclose([records[0]["quantities"][n]["best"] for n in NAMES], TRUTH, rtol=0.02)


def test_the_report_shows_few_circuits_and_no_table_of_one():
    quantity = {"best": 460.0, "known": True}
    circuit = {"probability": 0.5, "Rsh": 460.0, "Rs": 0.0, "residual": 0.01}
    record = {"name": "s", "points": 40, "frequencies_hz": [1.0, 1e6], "format": "CSV", "topology": "parallel",
              "read_as": ["Z in kOhm"], "notes": [], "kramers_kronig": {"sentence": "It holds."}, "noise": 0.01,
              "noise_from": "as given", "noise_kind": {"from": "default"}, "quantities": {"Rsh": quantity},
              "verdict": {"sentence": "Fine."}, "alarm": {"sentence": "None."}, "circuits": [circuit] * 8}  # fmt: skip
    text = report(record)
    assert "  Read as: Z in kOhm.\n" in text
    assert "s: 40 points, 1.00 Hz to 1.00 MHz (CSV), parallel circuit" in text and text.count("50.0%") == 5
    assert "likeliest" not in report(record | {"circuits": [circuit]})


def test_lines_are_broken_between_words_and_never_before_a_unit():
    for offset in range(1, 30):
        lines = wrapped(["", "x" * offset + " 1.03 µF to 66.3 kΩ and 20 Hz," * 8])
        assert all(len(line) <= 110 and line.startswith("  ") for line in lines) and len(lines) > 2
        assert not [line for line in lines[1:] if line.split()[0] in ("µF", "kΩ", "Hz,")]
        assert "\u00a0" not in "".join(lines)


def test_the_examples_errors_forgive_the_order_only_where_resistances_are_equal():
    truth: dict[str, float] = dict(zip(NAMES, [460.0, 100.0, 99.0, 1e-7, 1e-6], strict=True))
    np.testing.assert_allclose(eis_model_cells.errors(np.array([1e-6, 2e-7]), truth), [np.log10(2), 0], atol=1e-12)
    np.testing.assert_allclose(eis_model_cells.errors(np.array([1e-6, 2e-7]), truth | {"Rb": 200.0}),
                               [1, np.log10(5)])  # fmt: skip
    rows = [{"of": np.array(pair)} for pair in ((0.01, 0.02), (0.02, 0.5), (0.03, 0.04))]
    assert eis_model_cells.summary(rows, "of") == "Ca 0.020, Cb 0.040, both within half a step 67%"
