"""What the EIS predictor writes for other programs: circuits for impedance.py, JSON, a CSV row a spectrum."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from domains.eis import check_topology
from visualizers.canvas import write


def impedance_py(parameters: np.ndarray, topology: str, rs: float = 0.0) -> dict[str, Any]:
    """A circuit (5,) after rs ohm for impedance.py: CustomCircuit(circuit=..., initial_guess=...) takes both.

    series: R0-p(R1,C1)-p(R2,C2) with R0 = rs + Rsh. parallel: R0-p(R1,p(R2,C1)-p(R3,C2)) with R0 = rs and R1 = Rsh,
    without R0 where rs is 0, which a fit bounded to positive numbers could not start from. Guesses stand in the
    order of the string.
    """
    check_topology(topology)
    rsh, ra, rb, ca, cb = (float(value) for value in parameters)
    if topology == "series":
        return {"circuit": "R0-p(R1,C1)-p(R2,C2)", "initial_guess": [rs + rsh, ra, ca, rb, cb]}
    shunted, guess = "p(R1,p(R2,C1)-p(R3,C2))", [rsh, ra, ca, rb, cb]
    if rs == 0:
        return {"circuit": shunted, "initial_guess": guess}
    return {"circuit": f"R0-{shunted}", "initial_guess": [rs, *guess]}


def write_records(records: Sequence[Mapping[str, Any]], path: Path | str) -> Path:
    """Records of spectra, a line each, as JSON or CSV (`flat`, without marginals), by the path's suffix."""
    if str(path).endswith(".json"):
        lines = ",\n".join(json.dumps(record, allow_nan=False) for record in records)  # an indent takes ms a record
        return write(path, lambda file: file.write_text(f"[\n{lines}\n]\n"))
    rows = [flat({key: value for key, value in record.items() if key != "marginals"}) for record in records]
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def save(file: Path) -> None:
        with file.open("w", newline="") as stream:
            table = csv.DictWriter(stream, columns)
            table.writeheader()
            table.writerows(rows)

    return write(path, save)


def flat(record: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The single values of a nested record, by keys such as "intervals.Ca.90.0"; lists of records: the first alone."""
    row: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            row |= flat(value, f"{before}{key}.")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            row |= flat(value[0], f"{before}{key}.0.")
        elif isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            row[f"{before}{key}"] = "; ".join(value)
        elif isinstance(value, list | tuple):
            row |= {f"{before}{key}.{index}": one for index, one in enumerate(value)}
        else:
            row[f"{before}{key}"] = value
    return row
