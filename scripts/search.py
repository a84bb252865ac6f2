"""Searches over a configuration: the launcher's overrides, some with several values, and a method that chooses.

usage: python scripts/search.py method=METHOD run_name=NAME [key=value ...] KEY=SWEEP ...

  method=grid            grid: all combinations; random; golden: golden sections of one interval; optuna: TPE, pruning
  trials=20              how many (a grid has as many as it has combinations)
  metric=eval/loss       the metric that counts, of the run's last values
  mode=min               min or max
  search_seed=0          of the random draws and of Optuna's proposals
  pruner=median          optuna's, told of every evaluation's metric: none, median, hyperband, halving
  retry_failed=false     also try failed trials again
  jobs=1                 trials at a time, each in a process of its own; 0: in this process, for a debugger

Everything else is the launcher's. A sweep is a list (model=mlp,cnn or range(1,9,2)), for all but the grid also
interval(1e-4,1e-1), tag(log,interval(1e-4,1e-1)) in logarithms, int(interval(1,8)) of whole numbers; quote them for
the shell. Trial n is the run <output_dir>/<run_name>/n; beside it are search.json, at the end sweep.csv (every trial:
finished, pruned or crashed, with its error), sweep.png and curves.png. A crash, of its process too, marks its trial
and the search goes on. Configurations are those of when the search began, whatever is edited later. Given again, the
command goes on where it was stopped or killed, the trial at hand from its last checkpoint; more trials extend a
search. Example:

  python scripts/search.py method=optuna run_name=lr trials=30 epochs=3 \\
    'optimizer.learning_rate=tag(log,interval(1e-4,1e-1))'
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
from runtime.errors import UsageError
from scripts.arguments import command, parse
from scripts.compose import run_name_of, yes
from scripts.sweep_folder import enter
from scripts.sweep_report import conclude
from scripts.sweeps import checked, point_overrides, read_sweeps
from scripts.trials import Processes, Record, Report, Trial, run_here
from training.estimator import Interrupted
from training.search.golden import GoldenSection
from training.search.grid import GridSearch, RandomSearch
from training.search.optuna import OptunaSearch
from training.search.search import Search
from training.search.space import Interval
from training.signals import caught

METHODS = ("grid", "random", "golden", "optuna")


@dataclass
class Settings:
    """The keys of the command line that are not the launcher's."""

    method: str = "???"
    trials: int | None = None
    metric: str = "eval/loss"
    mode: str = "min"
    search_seed: int = 0
    pruner: str = "median"
    retry_failed: bool = False
    jobs: int = 1


def make(given: Settings, space: dict[str, list | Interval], score: Callable[..., Any]) -> Search:
    """The search that the settings ask for; UsageError for a method or a sweep that doesn't suit."""
    if given.method not in METHODS:
        raise UsageError(f"method must be one of {', '.join(METHODS)}, got {given.method!r}.")
    kept: Any = {"best_mode": given.mode, "optimize_field": given.metric, "name": "search"}
    intervals = [key for key, values in space.items() if isinstance(values, Interval)]
    trials = 20 if given.trials is None else given.trials
    if given.method == "grid":
        if intervals or given.trials is not None:
            got = f"an interval for {intervals[0]}" if intervals else f"trials={given.trials}"
            raise UsageError(f"method=grid tries all combinations of lists, got {got}.")
        return GridSearch(score, dict(space), **kept)  # type: ignore[arg-type]  # no interval is left
    if given.method == "random":
        return RandomSearch(score, space, trials, seed=given.search_seed, **kept)
    if given.method == "optuna":
        return OptunaSearch(score, space, trials, seed=given.search_seed, pruner=given.pruner, **kept)
    if list(space) != intervals or len(space) != 1:
        raise UsageError(f"method=golden needs one sweep, an interval, got sweeps of {', '.join(space)}.")
    if trials < 3:
        raise UsageError(f"method=golden needs at least 3 trials, got {trials}.")
    key, interval = intervals[0], space[intervals[0]]
    assert isinstance(interval, Interval)
    ends = (int(interval.low), int(interval.high)) if interval.integer else (interval.low, interval.high)
    return GoldenSection(score, *ends, trials - 2, integer=interval.integer, log=interval.log, param=key, **kept)


class Crashed(UsageError):
    """A trial that crashed; the sentence is in its record."""


def scorer(
    given: Settings, fixed: list[str], folder: Path, run: Callable[[Trial, Report | None], Record]
) -> Callable[..., dict[str, Any]]:
    """What trains one trial and gives its last held-out metrics."""

    def score(search_idx: int, report: Report | None = None, **values: Any) -> dict[str, int | float]:
        trial = Trial(folder, search_idx, (*fixed, *point_overrides(values)), values, given.metric)
        record = run(trial, report)
        if record["status"] == "crashed":
            raise Crashed(record["error"])
        return record["metrics"]

    return score


def work(arguments: list[str]) -> None:
    """Runs the search and prints what became of its trials."""
    own = {field.name for field in fields(Settings)}
    given, _ = parse([text for text in arguments if text.split("=")[0] in own], Settings)
    space, fixed = read_sweeps([text for text in arguments if text.split("=")[0] not in own])
    overwrite = yes(fixed, "overwrite")
    fixed = [text for text in fixed if not text.startswith(("overwrite=", "resume="))]
    name = run_name_of(fixed)
    if name is None:
        raise UsageError("run_name is missing; name your search, for example: run_name=lr.")
    if not space:
        raise UsageError("no key has several values; needed: a sweep such as model.hidden=32,64 (--help says more).")
    if given.jobs < 0:
        raise UsageError(f"jobs must be 0 or more, got {given.jobs}.")
    folder = Path(checked(space, fixed).output_dir) / name
    processes = Processes(output=given.jobs > 1)
    search = make(given, space, scorer(given, fixed, folder, processes.run if given.jobs else run_here))
    described = {"method": given.method, "metric": given.metric, "mode": given.mode, "search_seed": given.search_seed,
                 "sweeps": {key: str(values) for key, values in space.items()}, "fixed": fixed}  # fmt: skip
    if given.method == "grid":
        described["sweeps"] = sorted(space)  # more values extend a grid
    with enter(folder, described, overwrite), caught(processes):
        try:
            search.fit(folder, given.retry_failed, max(1, given.jobs))
        finally:
            conclude(folder, given.metric, given.mode)
    search.get_best_results()  # says so where there is none


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    try:
        return command(work, str(__doc__), arguments)
    except Interrupted as stop:
        return 128 + stop.signal


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
