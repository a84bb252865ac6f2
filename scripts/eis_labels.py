"""The same membrane under the same name over the records of a series of spectra."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from domains.eis import NAMES, SWAP
from domains.eis_series import stable_labels
from scripts.eis_export import impedance_py

OTHER: dict[str, str] = dict(zip(NAMES, (NAMES[i] for i in SWAP), strict=True))
LEAST = 0.02  # of the standard deviations of ln p: nothing is known better, and no step counts for ever
NOTE = "Which membrane is called a follows the series."


def follow(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of a series in its order, their membranes named as domains.eis_series.stable_labels does.

    Records in which the user's knowledge tells the membranes apart stay as they are, and all do then.
    """
    if not records or not all(record["merged"] for record in records):
        return records
    values = np.array([[record["quantities"][name]["best"] for name in NAMES] for record in records])
    widths = np.array([[deviation(record["quantities"][name]) for name in NAMES] for record in records])
    _, turned = stable_labels(values, widths)
    found = [swapped(record) if turn else record for record, turn in zip(records, turned, strict=True)]
    return [record | {"notes": [NOTE, *record["notes"]]} for record in found]


def deviation(quantity: Mapping[str, Any]) -> float:
    """The posterior's standard deviation of ln p, of its central 90%."""
    low, high = quantity.get("interval_90", (1.0, 1.0))
    return max(float(np.log(high / low)) / 3.29, LEAST)


def swapped(record: dict[str, Any]) -> dict[str, Any]:
    """A record with a and b changed over wherever it names them."""
    found = record | {name: renamed(record[name]) for name in ("quantities", "marginals")}
    found["circuits"] = [renamed(one) for one in record["circuits"]]
    found["verdict"] = {"sentence": re.sub("|".join(rf"\b{name}\b" for name in OTHER), lambda hit: OTHER[hit[0]],
                                           record["verdict"]["sentence"]),
                        "families": renamed(record["verdict"]["families"])}  # fmt: skip
    if "impedance_py" in record:
        found["impedance_py"] = [impedance_py(np.array([one[name] for name in NAMES]), record["topology"], one["Rs"])
                                 for one in found["circuits"]]  # fmt: skip
    return found


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A dictionary whose entries of the two membranes have changed places, in the old order of keys."""
    other = {OTHER.get(name, name): value for name, value in values.items()}
    order = [name for name in values if name in other]
    return {name: other[name] for name in [*order, *(name for name in other if name not in order)]}
