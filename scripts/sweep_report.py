"""What a sweep came to: one table of all its trials, printed and as CSV, and pictures."""

import contextlib
import csv
import json
import math
from pathlib import Path
from typing import Any

from runtime.columns import columns
from runtime.errors import UsageError
from scripts.sweeps import point_overrides
from scripts.trials import Record
from visualizers.curves import read_metrics
from visualizers.logs import compare_runs
from visualizers.search import visualize_search

LINES = 30  # more in one picture can't be told apart
WIDEST = 100  # characters of a printed column; the file has all


def records(sweep: Path) -> list[Record]:
    """The records of all trials in a sweep's folder, by number; what no process works on any more is unfinished."""
    found = [json.loads(path.read_text()) for path in sweep.glob("*/trial.json")]
    for record in found:
        if record["status"] in ("running", "stopped"):
            record["status"] = "unfinished"
    return sorted(found, key=lambda record: record["trial"])


def rows(found: list[Record], metric: str) -> list[dict[str, Any]]:
    """A row for each trial: number, status, swept values, metric, steps, seconds, exit status, error, other metrics."""
    others = sorted({name for record in found for name in record["metrics"]} - {metric})
    return [
        {"trial": record["trial"], "status": record["status"], **record["values"],
         metric: record["metrics"].get(metric),
         **{key: record[key] for key in ("steps", "seconds", "exit_status", "error")},
         **{name: record["metrics"].get(name) for name in others}}
        for record in found
    ]  # fmt: skip


def conclude(sweep: Path, metric: str, mode: str = "min") -> list[Record]:
    """Writes and prints the table, draws sweep.png and curves.png where there is something to draw; the records."""
    found = records(sweep)
    if not found:
        return found
    table = rows(found, metric)
    with (sweep / "sweep.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    shown = list(table[0])[: list(table[0]).index("error") + 1]
    lines = [tuple(_text(row[key])[:WIDEST] for key in shown) for row in table]
    print("\n".join(["", *columns([tuple(shown), *lines]), ""]))
    counts = {status: sum(record["status"] == status for record in found) for status in _statuses(found)}
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    print(f"{len(found)} trials: {told}")
    finished = [row for row in table if row["status"] == "finished" and row[metric] is not None]
    if finished:
        best = (max if mode == "max" else min)(finished, key=lambda row: row[metric])
        print(f"best    {metric}={best[metric]:.6g} in {sweep / str(best['trial'])}")
        print(f"        {' '.join(point_overrides({key: best[key] for key in found[0]['values']}))}")
    print(f"table   {sweep / 'sweep.csv'}")
    for path in pictures(sweep, found, metric, mode):
        print(f"picture {path}")
    return found


def pictures(sweep: Path, found: list[Record], metric: str, mode: str) -> list[Path]:
    """Draws the metric over what was swept, if two trials differ in it, and over the steps of all trials."""
    drawn = []
    search = [_evaluation(record, metric) for record in found if record["status"] != "unfinished"]
    state = {"name": sweep.name, "best_mode": mode, "optimize_field": metric, "search_summary": search}
    with contextlib.suppress(UsageError):  # all trials alike, or none with a value, make no picture
        drawn.append(visualize_search(state, sweep / "sweep.png"))
    files = {_label(record): sweep / str(record["trial"]) / "metrics.jsonl" for record in found}
    runs = {name: read_metrics(file) for name, file in files.items() if file.exists() and file.stat().st_size}
    runs = {name: series for name, series in list(runs.items())[-LINES:] if metric in series}
    if runs:
        drawn.append(compare_runs(runs, sweep / "curves.png", [metric]))
    return drawn


def _evaluation(record: Record, metric: str) -> dict[str, Any]:
    """A trial as the pictures of searches take it."""
    ended = {"param": record["values"], "pruned": record["status"] == "pruned"}
    if metric not in record["metrics"]:
        return {**ended, "error": record["error"]}
    return {**ended, "result": {metric: record["metrics"][metric]}}


def _label(record: Record) -> str:
    return f"{record['trial']}: {' '.join(_text(value) for value in record['values'].values())}"[:24]


def _statuses(found: list[Record]) -> list[str]:
    return [s for s in ("finished", "pruned", "crashed", "unfinished") if any(r["status"] == s for r in found)]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) and math.isfinite(value) else str(value)
