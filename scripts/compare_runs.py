"""Compares runs: where their configs differ, what each metric came to, and the curves in one picture.

usage: python scripts/compare_runs.py RUN RUN ... [key=value ...]

  RUN                 a run's folder, such as outputs/first
  metric=train/loss   metrics by names or patterns; left out: all that a run has logged
  out=both.png        also draws the metrics, a panel each and a line for each run; left out: no picture
  log=false           true: logarithmic axes, but for metrics that reach 0 or below
  smoothing=0         of the drawn curves: weight of the moving average, 0 to below 1

A config is that of the run's last sitting (resume-<n>.yaml, where there is one). Lowest and highest leave NaN out.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import numpy as np
from omegaconf import OmegaConf

from runtime.columns import columns
from runtime.config_files import MISSING, differences, leaves, load_config
from runtime.errors import UsageError
from scripts.arguments import command, ends_in, parse
from visualizers.curves import read_metrics
from visualizers.logs import Series, chosen, compare_runs


@dataclass
class Settings:
    """The keys of the command line."""

    metric: str | None = None
    out: str | None = None
    smoothing: float = 0.0
    log: bool = False


def labels(folders: list[Path]) -> list[str]:
    """A name for each of different folders: as many last parts of the paths as tell all of them apart."""
    parts = [folder.resolve().parts for folder in folders]
    depth = next(
        depth for depth in range(1, 1 + max(map(len, parts))) if len({p[-depth:] for p in parts}) == len(parts)
    )
    return ["/".join(p[-depth:]) for p in parts]


def config_of(folder: Path) -> dict[str, Any]:
    """The config of a run's last sitting, by dotted keys."""
    found: Any = OmegaConf.to_container(load_config(folder))
    return leaves(found)


def outcomes(series: Series) -> dict[str, tuple[str, ...]]:
    """Of each metric its last value and step, lowest and highest with their steps."""
    found = {}
    for name, (steps, values) in series.items():
        known = np.where(np.isnan(values), np.inf, values), np.where(np.isnan(values), -np.inf, values)
        places = [len(values) - 1, int(known[0].argmin()), int(known[1].argmax())]
        found[name] = tuple(text for place in places for text in (f"{values[place]:.6g}", str(steps[place])))
    return found


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


def work(arguments: list[str]) -> None:
    """Prints the differences of configs and the table of metrics; draws where that is asked for."""
    folders = [Path(text) for text in arguments if "=" not in text]
    given, _ = parse([text for text in arguments if "=" in text], Settings)
    ends_in((".png", ".pdf", ".svg"), out=given.out)
    if not 0 <= given.smoothing < 1:
        raise UsageError(f"smoothing must be at least 0 and below 1, got {given.smoothing}.")
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UsageError(f"needed: two or more folders of different runs, got {' '.join(map(str, folders)) or 'none'}.")
    named = dict(zip(labels(folders), folders, strict=True))
    configs = {name: config_of(folder) for name, folder in named.items()}
    runs = {name: read_metrics(folder / "metrics.jsonl") for name, folder in named.items()}
    logged = sorted({name for series in runs.values() for name in series} - {"time"})
    metrics = chosen(logged, include=given.metric.split(",") if given.metric else ())
    rows = differences(configs)
    print("\n".join(columns([("config", *configs), *rows]) if rows else ["The configs are the same."]))
    table = [("metric", "run", "last", "step", "lowest", "step", "highest", "step")]
    for metric in metrics:
        told = {name: outcomes({metric: series[metric]})[metric] for name, series in runs.items() if metric in series}
        table += [(metric, name, *told.get(name, (MISSING,) + ("",) * 5)) for name in runs]
    print("\n" + "\n".join(columns(table)))
    if given.out:
        print(f"\n{compare_runs(runs, given.out, metrics, given.smoothing, log=given.log)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
