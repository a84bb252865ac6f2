"""Many runs in one picture: every metric a panel, every run or group of runs a line."""

import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from runtime.errors import UsageError, closest
from visualizers.canvas import new_figure, save_figure
from visualizers.curves import as_series, read_metrics, smooth

Series = dict[str, tuple[np.ndarray, np.ndarray]]


def read_run(path: Path | str) -> Series:
    """The series of a metrics.jsonl or of a saved Summary (JSON with `history`), name -> (steps (n,), values (n,))."""
    path = Path(path)
    if path.suffix == ".jsonl":
        return read_metrics(path)
    try:
        history = json.loads(path.read_text())["history"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UsageError(f"{path} is no record of a run; needed: metrics.jsonl or a saved Summary.") from error
    return as_series(history)


def find_runs(places: Sequence[Path | str]) -> dict[str, Path]:
    """Records of runs by name: the given files, and below folders every metrics.jsonl, saved Summary and Experiment.

    A run is named by its folder below the given one, or by its file's stem. UsageError where there is none.
    """
    found: list[tuple[str, Path]] = []
    for place in map(Path, places):
        if place.is_file():
            found.append((place.parent.name if place.name == "metrics.jsonl" else place.stem, place))
        elif not place.is_dir():
            raise UsageError(f"there is no file or folder {place}.")
        files = [f for f in sorted(place.rglob("*.json*")) if f.name == "metrics.jsonl" or _is_summary(f)]
        if place.is_dir() and not files:
            raise UsageError(f"{place} holds no record of a run; needed: metrics.jsonl or a saved Summary.")
        for file in files:
            inner = (file.parent if file.name == "metrics.jsonl" else file.with_suffix("")).relative_to(place)
            found.append((str(inner) if inner.parts else place.resolve().name, file))
    names = [name for name, _ in found]
    return {name if names.count(name) == 1 else str(file): file for name, file in found}


def read_runs(places: Sequence[Path | str]) -> dict[str, Series]:
    """The series of every run that `find_runs` finds; those of an Experiment are named <file>/<summary>."""
    runs: dict[str, Series] = {}
    for name, file in find_runs(places).items():
        content = _content(file)
        if "summaries" in content:
            runs |= {f"{name}/{one['name']}": as_series(one["history"]) for one in content["summaries"]}
        else:
            runs[name] = read_run(file)
    return runs


def _is_summary(file: Path) -> bool:
    content = _content(file)
    one = isinstance(content.get("history"), list) and "latest" in content
    return one or ("experiment" in content and isinstance(content.get("summaries"), list))


def _content(file: Path) -> dict:
    """The object in a JSON file; {} for any other file."""
    if file.suffix != ".json":
        return {}
    try:
        content = json.loads(file.read_text())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def group_names(names: Sequence[str], pattern: str | None) -> dict[str, str]:
    """The group of each run: what the pattern's first group matches at the name's start, else the name.

    "_n" stands for `(.*)_[0-9]+`.
    """
    pattern = r"(.*)_[0-9]+" if pattern == "_n" else pattern
    if pattern is None:
        return {name: name for name in names}
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"group_by must be a regular expression, got {pattern!r}: {error}.") from error
    if compiled.groups < 1:
        raise UsageError(f"group_by needs a group in parentheses, such as (.*)_[0-9]+, got {pattern!r}.")
    return {name: found[1] if (found := compiled.match(name)) and found[1] else name for name in names}


def chosen(known: Sequence[str], ignore: Sequence[str] = (), include: Sequence[str] = ()) -> list[str]:
    """Metrics by names or patterns such as perf/*; UsageError for a pattern that fits none, and where none is left."""
    if not known:
        raise UsageError("nothing was logged by these runs: shorter than trackio.log_every steps, and not evaluated?")
    for pattern in (*ignore, *include):
        if not any(fnmatch(name, pattern) for name in known):
            raise UsageError(f"no run has logged {pattern!r}; nearest: {closest(pattern, list(known))}.")
    kept = [name for name in known if not include or any(fnmatch(name, pattern) for pattern in include)]
    kept = [name for name in kept if not any(fnmatch(name, pattern) for pattern in ignore)]
    if not kept:
        raise UsageError(f"no metric is left to draw of {', '.join(known)}.")
    return kept


def mean_and_spread(series: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, mean and standard deviation (n,) of several runs' series, between steps by lines, where all have values.

    The deviation is that of the runs at hand (no n - 1). Runs without a step in common range keep none.
    """
    low, high = max(steps[0] for steps, _ in series), min(steps[-1] for steps, _ in series)
    steps = np.unique(np.concatenate([steps for steps, _ in series]))
    steps = steps[(steps >= low) & (steps <= high)]
    values = np.stack([np.interp(steps, own, given) for own, given in series])
    return steps, values.mean(0), values.std(0)


def compare_runs(runs: Mapping[str, Series], path: Path | str, metrics: Sequence[str], smoothing: float = 0.0,
                 group_by: str | None = None, share_legend: bool = True, legend: bool = True,
                 log: bool = False) -> Path:  # fmt: skip
    """A panel for each metric, a line for each run, or for each group its mean with a band of one deviation.

    smoothing in [0, 1) as in `curves.smooth`, of every run before the mean. share_legend: one for all panels. legend:
    whether there is one. log: logarithmic axes, but for metrics that are 0 or below somewhere, whose labels say
    "linear". The format is that of the path's suffix.
    """
    if not 0 <= smoothing < 1:
        raise UsageError(f"smoothing must be at least 0 and below 1, got {smoothing}.")
    groups = group_names(list(runs), group_by)
    labels = list(dict.fromkeys(groups.values()))
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    ncols = min(4, max(1, 60 * columns // (max(map(len, labels)) + 7)))  # about 60 letters fit below a panel
    legend_rows = -(-len(labels) // ncols) if legend and share_legend else 0
    figure, axes = new_figure(4.8 * columns, 3.4 * rows + 0.3 + 0.24 * max(0, legend_rows - 2), rows, columns)
    from matplotlib import colormaps

    shown = {}
    for axis, metric in zip(axes.flat, metrics, strict=False):
        for index, label in enumerate(labels):
            members = [runs[name][metric] for name, group in groups.items() if group == label and metric in runs[name]]
            if not members:
                continue
            colour = f"C{index}" if len(labels) <= 10 else colormaps["turbo"](index / (len(labels) - 1))
            smoothed = [(steps, smooth(values, smoothing)) for steps, values in members]
            steps, mean, spread = mean_and_spread(smoothed)
            few = "o-" if len(steps) == 1 else "-"
            shown[label] = axis.plot(steps, mean, few, color=colour, linewidth=1.4, label=label, markersize=4)[0]
            if len(members) > 1:
                axis.fill_between(steps, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
            elif smoothing:
                axis.plot(*members[0], color=colour, linewidth=0.6, alpha=0.35)
        drawn = [values for name in runs if metric in runs[name] for values in runs[name][metric][1:]]
        positive = log and all((values[np.isfinite(values)] > 0).all() for values in drawn)
        name = metric.replace("$", r"\$")  # a pair of them would be a formula
        axis.set(xlabel="step", ylabel=f"{name} (linear)" if log and not positive else name)
        axis.set_yscale("log" if positive else "linear")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if legend and not share_legend:
            axis.legend(frameon=False)
    for axis in axes.flat[len(metrics) :]:
        axis.set_axis_off()
    if legend and share_legend:
        figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=ncols, frameon=False)
    return save_figure(figure, path)


def plot_learning_curves(
    runs: Path | str | Sequence[Path | str] | Mapping[str, Path | str],
    path: Path | str,
    metrics: str | Sequence[str] = "*loss*",
    smoothing: float = 0.0,
    log: bool = False,
) -> Path:
    """The curves of one or several runs, a panel for each metric that a pattern fits, as `compare_runs` draws them.

    runs: folders or records as `read_runs` takes them, or {label: metrics.jsonl or a run's folder}. UsageError for a
    pattern that fits no metric of any run.
    """
    if isinstance(runs, Mapping):
        files = {label: Path(place) for label, place in runs.items()}
        series = {label: read_run(file / "metrics.jsonl" if file.is_dir() else file) for label, file in files.items()}
    else:
        series = read_runs([runs] if isinstance(runs, str | Path) else runs)
    known = sorted({name for one in series.values() for name in one} - {"time"})
    wanted = chosen(known, include=[metrics] if isinstance(metrics, str) else metrics)
    return compare_runs(series, path, wanted, smoothing, log=log)
