"""Learning curves out of metrics.jsonl files, one object a line: {"step": 10, "loss": 0.5, ...}."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UsageError, closest
from visualizers.canvas import new_figure, save_figure


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


def plot_curves(
    runs: Mapping[str, Path | str], metrics: Sequence[str], path: Path | str, smoothing: float = 0.0, log: bool = False
) -> Path:
    """A panel a metric, a line a run ({label: metrics.jsonl}), against the step, as PNG; smoothed over the raw line."""
    read = {label: read_metrics(file) for label, file in runs.items()}
    known = sorted({name for series in read.values() for name in series})
    for metric in metrics:
        if metric not in known:
            raise UsageError(f"no run has logged {metric!r}; nearest: {closest(metric, known)}.")
    figure, axes = new_figure(4.8 * len(metrics), 3.6, 1, len(metrics))
    for axis, metric in zip(axes[0], metrics, strict=True):
        for index, (label, series) in enumerate(read.items()):
            if metric not in series:
                continue
            steps, values = series[metric]
            colour = f"C{index % 10}"
            if smoothing:
                axis.plot(steps, values, color=colour, linewidth=0.6, alpha=0.35)
            axis.plot(steps, smooth(values, smoothing), color=colour, linewidth=1.4, label=label)
        axis.set(xlabel="step", ylabel=metric, yscale="log" if log else "linear")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return save_figure(figure, path)
