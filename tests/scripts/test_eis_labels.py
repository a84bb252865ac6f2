"""Names of membranes over a series' records."""

import copy

import numpy as np
import pytest

from domains.eis import NAMES, canonical
from scripts.eis_export import impedance_py
from scripts.eis_labels import NOTE, follow, renamed, swapped


def record(circuit, merged=True):
    values: dict[str, float] = dict(zip(NAMES, map(float, circuit), strict=True))
    quantities = {name: {"best": value, "interval_90": [value / 1.1, value * 1.1]} for name, value in values.items()}
    return {"merged": merged, "topology": "parallel", "quantities": quantities | {"TER": {"best": 1.0}},
            "circuits": [values | {"Rs": 5.0, "probability": 0.9}], "marginals": {"Ra": [1, 0], "Rb": [0, 1]},
            "verdict": {"sentence": "Ra = 1 is, Ca, Cb and Rsh are not.", "families": {"Ca": [1.0, 2.0]}},
            "impedance_py": [impedance_py(np.array(circuit), "parallel", 5.0)], "notes": []}  # fmt: skip


def test_everything_that_names_a_membrane_changes_over():
    before = record([460, 1000, 100, 1e-6, 4e-6])
    kept = copy.deepcopy(before)
    found = swapped(before)
    assert before == kept and swapped(found) == before
    assert [found["quantities"][name]["best"] for name in NAMES] == [460, 100, 1000, 4e-6, 1e-6]
    assert list(found["quantities"]) == list(before["quantities"])
    assert found["circuits"][0]["Ra"] == 100 and found["circuits"][0]["Rs"] == 5.0
    assert found["marginals"] == {"Ra": [0, 1], "Rb": [1, 0]}
    assert found["verdict"] == {"sentence": "Rb = 1 is, Cb, Ca and Rsh are not.", "families": {"Cb": [1.0, 2.0]}}
    assert found["impedance_py"][0]["initial_guess"] == [5.0, 460.0, 100.0, 4e-6, 1000.0, 1e-6]


def test_a_membrane_keeps_its_name_where_time_constants_cross():
    t = np.linspace(-1, 1, 12)
    series = np.stack([460 + 0 * t, 2000 + 0 * t, 500 + 0 * t, 1e-6 * np.exp(t), 4e-6 * np.exp(-t)], axis=1)
    named = canonical(series)
    assert (named != series).any()
    found = follow([record(one) for one in named])
    np.testing.assert_allclose([one["quantities"]["Ra"]["best"] for one in found], 2000)
    assert all(NOTE in one["notes"] for one in found)


def test_what_the_user_knows_of_a_membrane_names_it():
    records = [record([460, 1000, 100, 1e-6, 4e-6]), record([460, 100, 1000, 4e-6, 1e-6], merged=False)]
    assert follow(records) == records and follow([]) == []


@pytest.mark.parametrize("values", [{"Ra": 1}, {"Ra": 1, "Rb": 2}, {"Rsh": 3}])
def test_names_change_twice_to_themselves(values):
    assert renamed(renamed(values)) == values
