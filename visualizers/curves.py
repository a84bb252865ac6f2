"""The numbers of learning curves, out of metrics.jsonl files, one object a line: {"step": 10, "loss": 0.5, ...}."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UsageError


def read_metrics(path: Path | str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The series of every numeric metric, name -> (steps (n,), values (n,)), ordered by step.

    A step written twice (a resumed run) counts as written last; an unfinished last line is left out.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no metrics file {path}.")
    rows, lines = [], path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise UsageError(f"{path}, line {number} is no JSON object: {line[:60]!r}.") from error
    return as_series(rows)


def as_series(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows {"step": 10, "loss": 0.5, ...} as series, as `read_metrics` gives them."""
    series: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                series.setdefault(name, {})[row["step"]] = value
    return {
        name: (np.array(sorted(values)), np.array([values[step] for step in sorted(values)], np.float64))
        for name, values in series.items()
    }


def smooth(values: np.ndarray, weight: float) -> np.ndarray:
    """The exponential moving average of values (n,), without the pull to its start: weight 0 changes nothing.

    Where a value is not finite it is the result's too, and of the average nothing.
    """
    total, norm, out = 0.0, 0.0, []
    for value in values:
        if not np.isfinite(value):
            out.append(value)
            continue
        total, norm = weight * total + (1 - weight) * value, weight * norm + (1 - weight)
        out.append(total / norm)
    return np.array(out)
