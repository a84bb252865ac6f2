"""What the user of the EIS predictor knows of a circuit: known.Rsh=460 on the command line, or a table of files."""

import csv
import math
from pathlib import Path

from domains.eis import NAMES
from runtime.errors import UsageError, closest

VALID = (*NAMES, "Rs")  # Rs: the resistance in series with all


def split(arguments: list[str]) -> tuple[list[str], dict[str, float]]:
    """The arguments that are no known.NAME=VALUE, and the values (ohm, farad) by name of those that are."""
    rest, known = [], {}
    for text in arguments:
        key, _, value = text.partition("=")
        name = key.removeprefix("known.")
        if name == key:
            rest.append(text)
            continue
        known[checked_name(name, "known")] = number(name, value)
    return rest, known


def checked_name(name: str, where: str) -> str:
    """The name; UsageError unless it is one of VALID."""
    if name not in VALID:
        raise UsageError(f"{where}: there is no parameter {name!r}; nearest: {closest(name, list(VALID))}; all: "
                         f"{', '.join(VALID)}.")  # fmt: skip
    return name


def number(name: str, text: str) -> float:
    """A value in ohm or farad; UsageError unless it is a finite number above 0 (Rs: at least 0)."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    least = "at least" if name == "Rs" else "above"
    if not math.isfinite(value) or value < 0 or (value == 0 and name != "Rs"):
        unit = "farad" if name.startswith("C") else "ohm"
        raise UsageError(f"known {name} must be a number of {unit} {least} 0, such as "
                         f"{'3e-6' if unit == 'farad' else '460'}, got {text!r}.")  # fmt: skip
    return value


def table(path: str | Path) -> dict[str, dict[str, float]]:
    """Known values by file name from a CSV file with the columns `file` and names of VALID; empty cells are unknown."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"known: there is no table {path}; needed: known.NAME=VALUE or a CSV file.")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        names = [name for name in reader.fieldnames or () if name != "file"]
        if "file" not in (reader.fieldnames or ()):
            raise UsageError(f"known: {path} needs a column 'file' and columns among {', '.join(VALID)}, got "
                             f"{', '.join(names) or 'none'}.")  # fmt: skip
        for name in names:
            checked_name(name, str(path))
        return {row["file"]: {name: number(name, row[name]) for name in names if row[name]} for row in reader}
