"""The EIS predictor's record of one spectrum as text for the terminal."""

import re
import textwrap
from collections.abc import Mapping
from typing import Any

from domains.eis import NAMES
from domains.eis_units import UNIT_OF, si
from runtime.columns import columns

SHOWN = 5  # of the likeliest circuits; the files have all of top_k
HEADERS = ("", "best", "median", "90% of the posterior", "")


def report(record: Mapping[str, Any]) -> str:
    """Several lines: what was measured and checked, a row a quantity, verdict, alarm, the likeliest circuits."""
    low, high = (si(end, "Hz") for end in record["frequencies_hz"])
    lines = [f"{record['name']}: {record['points']} points, {low} to {high} ({record['format']}), "
             f"{record['topology']} circuit"]  # fmt: skip
    read = [f"Read as: {'; '.join(record['read_as'])}."] if record["read_as"] else []
    said = [*read, *record["notes"], record["kramers_kronig"]["sentence"],
            f"Noise: {record['noise']:.2%} of |Z| on each part, {record['noise_from']}.",
            record["noise_kind"]["sentence"] if record["noise_kind"]["from"] != "default" else "",
            record["alarm"]["sentence"]]  # fmt: skip
    rows = [HEADERS, *(row(name, values) for name, values in record["quantities"].items())]
    table = [f"  {line}" for line in columns(rows)]
    return "\n".join([*lines, *wrapped(said), *table, *wrapped([record["verdict"]["sentence"]]), *circuits(record),
                      *initial_guesses(record)])  # fmt: skip


def row(name: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Name, best value, median, central 90% and whether it is known or determined."""
    unit = UNIT_OF[name]
    interval = values.get("interval_90")
    state = "known" if values.get("known") else "determined" if values["determined"] else "not determined"
    return (name, si(values["best"], unit), si(values["median"], unit) if interval else "",
            f"{si(interval[0], unit)} to {si(interval[1], unit)}" if interval else "", state)  # fmt: skip


def circuits(record: Mapping[str, Any]) -> list[str]:
    """A table of the likeliest circuits, best first."""
    found = record["circuits"][:SHOWN]
    if len(found) < 2:
        return []
    names = [name for name in (*NAMES, "Rs") if name in found[0]]
    rows = [("probability", *names, "off"),
            *((f"{one['probability']:.1%}", *(si(one[name], UNIT_OF[name]) for name in names), f"{one['residual']:.2%}")
              for one in found)]  # fmt: skip
    return [
        f"  The {len(found)} likeliest circuits (off: mean |dZ| / |Z|):",
        *(f"    {line}" for line in columns(rows)),
    ]


def initial_guesses(record: Mapping[str, Any]) -> list[str]:
    """The circuits for impedance.py, where they were asked for."""
    guesses = record.get("impedance_py", [])[:SHOWN]
    return ["  For impedance.py:" for _ in guesses[:1]] + [
        f"    CustomCircuit(circuit={one['circuit']!r}, initial_guess=[" + ", ".join(
            f"{value:.4g}" for value in one["initial_guess"]) + "])" for one in guesses]  # fmt: skip


def wrapped(sentences: list[str]) -> list[str]:
    """Sentences as indented lines of at most 110 characters; a number stays beside its unit."""
    joined = [re.sub(r"(?<=\d) (?=\w?(?:Ω|F|s|Hz)\b)", "\u00a0", text) for text in sentences if text]
    return [line.replace("\u00a0", " ") for text in joined
            for line in textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="    ")]  # fmt: skip
