"""Exports of the EIS predictor: circuits as impedance.py reads them, JSON and CSV that hold what was found."""

import csv
import json

import numpy as np
import pytest

from domains.eis import default_frequencies, impedance
from runtime.errors import UsageError
from scripts.eis_export import flat, impedance_py, write_records

CIRCUIT = np.array([460.0, 4820.0, 2210.0, 3e-6, 1e-6])


def evaluate(text, guess, frequencies):
    """Z of a circuit string by impedance.py's rules: - in series, p( , ) parallel, guesses in order of appearance."""
    values = iter(guess)
    jw = 2j * np.pi * frequencies

    def split(inner, mark):
        depth, parts = 0, [""]
        for letter in inner:
            depth += (letter == "(") - (letter == ")")
            parts = [*parts, ""] if letter == mark and depth == 0 else [*parts[:-1], parts[-1] + letter]
        return parts

    def z(part):
        if len(series := split(part, "-")) > 1:
            return sum(z(one) for one in series)
        if part.startswith("p("):
            return 1 / sum(1 / z(one) for one in split(part[2:-1], ","))
        value = next(values)
        return value + 0 * jw if part[0] == "R" else 1 / (jw * value)

    found = z(text)
    assert next(values, None) is None, "more guesses than elements"
    return found


@pytest.mark.parametrize("topology", ["series", "parallel"])
@pytest.mark.parametrize("rs", [0.0, 25.0])
def test_the_circuit_string_and_guess_give_the_impedance(topology, rs):
    given, frequencies = impedance_py(CIRCUIT, topology, rs), default_frequencies(40)
    expected = impedance(CIRCUIT, frequencies, topology, rs)
    np.testing.assert_allclose(evaluate(given["circuit"], given["initial_guess"], frequencies), expected, rtol=1e-12)
    assert all(value > 0 for value in given["initial_guess"])


def test_topology_is_checked():
    with pytest.raises(UsageError, match="topology must be"):
        impedance_py(CIRCUIT, "ladder")


RECORD = {"file": "a, b.csv", "determined": {"Rsh": False}, "circuits": [{"Ca": 1e-6}, {"Ca": 2e-6}],
          "intervals": {"Ca": {"90%": [1e-6, 3e-6]}}, "notes": ["one", "two"], "mean": None}  # fmt: skip


def test_json_holds_everything(tmp_path):
    write_records([RECORD], tmp_path / "x" / "r.json")
    assert json.loads((tmp_path / "x" / "r.json").read_text()) == [RECORD]
    with pytest.raises(ValueError, match="JSON compliant"):  # NaN is no JSON; the file before stays
        write_records([{"mean": float("nan")}], tmp_path / "x" / "r.json")
    assert json.loads((tmp_path / "x" / "r.json").read_text()) == [RECORD]


def test_csv_has_a_row_a_spectrum_and_the_columns_of_all(tmp_path):
    write_records([RECORD, {"file": "c", "error": "no"}], tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {"file": "a, b.csv", "determined.Rsh": "False", "circuits.0.Ca": "1e-06", "mean": "",
                     "intervals.Ca.90%.0": "1e-06", "intervals.Ca.90%.1": "3e-06", "notes": "one; two",
                     "error": ""}  # fmt: skip
    assert second["file"] == "c" and second["error"] == "no" and second["notes"] == ""


def test_empty_lists_are_empty_cells():
    assert flat({"notes": [], "a": {"b": []}}) == {"notes": "", "a.b": ""}
