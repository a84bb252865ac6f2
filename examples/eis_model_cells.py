"""Measured model cells of known components: what the predictor makes of them, beside a fit from the truth.

python examples/eis_model_cells.py [model]

The cells (NIH 3P-EIS, MIT licence in examples/data/eis) are parallel circuits of real components. Told Rsh, Ra and Rb,
the predictor finds Ca and Cb. Told all five, it raises an alarm for the cells that their record does not explain. Told
nothing, it reports that Rsh is not determined.
"""

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in examples/ instead

import runtime.blas  # noqa: F401  before mlx

# isort: split
import numpy as np

from dataloaders.eis_files import read
from domains.eis import CELL, NAMES
from domains.eis_fit import levenberg_marquardt
from domains.eis_spectrum import Spectrum
from evaluation.eis_predictor import EISParameterCompleter
from scripts.eis_analysis import ALIKE, Options, analyse
from scripts.eis_models import load

FOLDER = Path(__file__).parent / "data" / "eis"
HALF_BIN = CELL[3] / np.log(10) / 2  # of a capacitance on the grid


def recorded() -> dict[str, dict[str, float]]:
    """The components of each cell's record in ohm and farad, by file name; the shunt is called Rs there, here Rsh."""
    with (FOLDER / "model_cells.csv").open() as file:
        return {row["file"]: {name: float(row["Rs" if name == "Rsh" else name]) for name in NAMES}
                for row in csv.DictReader(file)}  # fmt: skip


def errors(found: np.ndarray, truth: dict[str, float]) -> np.ndarray:
    """|log10| of found over true Ca and Cb, (2,); in the better order where Ra and Rb are equal within 2%."""
    true = np.array([truth["Ca"], truth["Cb"]])
    orders = [found, found[::-1]] if abs(np.log(truth["Ra"] / truth["Rb"])) < ALIKE else [found]
    return min((np.abs(np.log10(order / true)) for order in orders), key=max)


def fitted(spectrum: Spectrum, truth: dict[str, float]) -> np.ndarray:
    """Ca and Cb (2,) of a Levenberg-Marquardt fit from the truth, Rsh, Ra and Rb held, Rs fitted."""
    known = {name: truth[name] for name in NAMES[:3]}
    start = np.array([list(truth.values())])
    return levenberg_marquardt(spectrum.frequencies, spectrum.z, start, "parallel", known, None).parameters[0, 3:]


def evaluate(completer: EISParameterCompleter) -> list[dict]:
    """A row a cell: errors of Ca and Cb, of the fit's, three alarms (all known, three, none), whether Rsh is found."""
    rows = []
    for name, truth in recorded().items():
        (spectrum,) = read(FOLDER / "cells" / name)
        three = {key: truth[key] for key in NAMES[:3]}
        records = [analyse(spectrum, known, completer, Options())[0] for known in (truth, three, {})]
        found = np.array([records[1]["quantities"][key]["best"] for key in NAMES[3:]])
        rows.append({"cell": name, "errors": errors(found, truth), "fit": errors(fitted(spectrum, truth), truth),
                     "alarms": [record["alarm"]["raised"] for record in records],
                     "rsh": records[2]["quantities"]["Rsh"]["determined"]})  # fmt: skip
    return rows


def summary(rows: list[dict], of: str) -> str:
    """Medians of the errors of Ca and Cb, and the share of cells with both within half a step of the grid."""
    both = np.array([row[of] for row in rows])
    ca, cb = np.median(both, axis=0)
    return f"Ca {ca:.3f}, Cb {cb:.3f}, both within half a step {(both < HALF_BIN).all(axis=1).mean():.0%}"


def main(model: str = "parallel") -> None:
    """Prints the table and what it comes to."""
    rows = evaluate(load(model))
    marks = {True: "ALARM", False: "-"}
    print(f"{'cell':20}  log10 error Ca, Cb  fit from the truth  alarm: all known, three, none  Rsh")
    for row in rows:
        numbers = "    ".join(f"{ca:8.3f} {cb:8.3f}" for ca, cb in (row["errors"], row["fit"]))
        alarms = "  ".join(f"{marks[one]:8}" for one in row["alarms"])
        print(f"{row['cell']:20} {numbers}     {alarms}  {'determined' if row['rsh'] else 'not determined'}")
    explained = [row for row in rows if not row["alarms"][0]]
    for title, some in ((f"all {len(rows)}", rows), (f"the {len(explained)} that their record explains", explained)):
        print(f"{title}: predictor {summary(some, 'errors')}; fit {summary(some, 'fit')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
