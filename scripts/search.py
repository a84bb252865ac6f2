"""Searches over a configuration: the launcher's overrides, some with several values, and a method that chooses.

usage: python scripts/search.py method=METHOD run_name=NAME [key=value ...] KEY=SWEEP ...

  method=grid            grid: all combinations; random; golden: golden sections of one interval; optuna: TPE, pruning
  trials=20              how many (a grid has as many as it has combinations)
  metric=eval/loss       the metric that counts, of the run's last values
  mode=min               min or max
  search_seed=0          of the random draws and of Optuna's proposals
  pruner=median          optuna's, told of every evaluation's metric: none, median, hyperband, halving
  retry_failed=false     also try failed trials again

Everything else is the launcher's. A sweep is a list (model=mlp,cnn or range(1,9,2)), for all but the grid also
interval(1e-4,1e-1), tag(log,interval(1e-4,1e-1)) in logarithms, int(interval(1,8)) of whole numbers; quote them for
the shell. Trial n is the run <output_dir>/<run_name>/n; search.json beside it has all of them, search.png shows them.
Given again, the command goes on where it was stopped or killed, the trial at hand from its last checkpoint; more
trials extend a search. Example:

  python scripts/search.py method=optuna run_name=lr trials=30 epochs=3 \\
    'optimizer.learning_rate=tag(log,interval(1e-4,1e-1))'
"""

import contextlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
from launcher import train
from runtime.errors import UsageError
from scripts.arguments import command, parse
from scripts.compose import compose, run_name_of
from scripts.sweeps import point_overrides, read_sweeps
from traces.prune import Prune
from training.estimator import Interrupted
from training.search.golden import GoldenSection
from training.search.grid import GridSearch, RandomSearch
from training.search.optuna import OptunaSearch
from training.search.search import Search
from training.search.space import Interval
from visualizers.search import visualize_search

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


def scorer(given: Settings, fixed: list[str], folder: Path) -> Callable[..., dict[str, Any]]:
    """What trains one trial and gives its last held-out metrics."""

    def score(
        search_idx: int, report: Callable[[float, int], bool] | None = None, **values: Any
    ) -> dict[str, int | float]:
        place = folder / str(search_idx)
        overrides = [*fixed, *point_overrides(values)]
        again = ["resume=true"] if (place / "config.yaml").exists() else []  # killed in it
        traces = [] if report is None else [Prune(report, given.metric)]
        summary = train(compose([*overrides, *again]), place, overrides, traces)
        found = {k: v for k, v in summary.latest.items() if k.startswith("eval/") or k == given.metric}
        found = {k: v for k, v in found.items() if isinstance(v, int | float) and not k.endswith("_floor")}
        if given.metric not in found:
            known = ", ".join(found) or "none (is eval_every=null?)"
            raise UsageError(f"metric={given.metric} was not logged; the held-out metrics are {known}.")
        return found

    return score


def enter(folder: Path, described: dict[str, Any], overwrite: bool) -> None:
    """Makes the folder of the search, or makes sure that it holds this one; UsageError otherwise."""
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    if (folder / "config.yaml").exists():
        raise UsageError(f"{folder} is a run, no search; choose another run_name or replace it with overwrite=true.")
    file = folder / "search_settings.json"
    if file.exists() and (stored := json.loads(file.read_text())) != described:
        key = next(k for k in described if stored.get(k) != described[k])
        raise UsageError(
            f"{folder} holds another search: its {key} was {stored.get(key)}, now {described[key]}; choose another "
            "run_name or replace it with overwrite=true."
        )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(described, indent=2) + "\n")


def work(arguments: list[str]) -> None:
    """Runs the search and prints its best trial."""
    own = {field.name for field in fields(Settings)}
    given, _ = parse([text for text in arguments if text.split("=")[0] in own], Settings)
    space, fixed = read_sweeps([text for text in arguments if text.split("=")[0] not in own])
    overwrite = "overwrite=true" in fixed
    fixed = [text for text in fixed if not text.startswith(("overwrite=", "resume="))]
    name = run_name_of(fixed)
    if name is None:
        raise UsageError("run_name is missing; name your search, for example: run_name=lr.")
    if not space:
        raise UsageError("no key has several values; needed: a sweep such as model.hidden=32,64 (--help says more).")
    first = {key: values.low if isinstance(values, Interval) else values[0] for key, values in space.items()}
    config = compose([*fixed, *point_overrides(first)])  # a mistake is told now, not in every trial
    folder = Path(config.output_dir) / name
    search = make(given, space, scorer(given, fixed, folder))
    described = {"method": given.method, "metric": given.metric, "mode": given.mode, "search_seed": given.search_seed,
                 "sweeps": {key: str(values) for key, values in space.items()}, "fixed": fixed}  # fmt: skip
    if given.method == "grid":
        described["sweeps"] = sorted(space)  # more values extend a grid
    enter(folder, described, overwrite)
    search.fit(folder, given.retry_failed)
    best = search.get_best_results()
    index = best["param"]["search_idx"]
    failed = sum("error" in done for done in search.search_summary)
    print(f"{len(search.search_summary)} trials, {failed} failed, "
          f"{sum(bool(done.get('pruned')) for done in search.search_summary)} pruned")  # fmt: skip
    print(f"best    {given.metric}={best['result'][given.metric]:.6g} in {folder / str(index)}")
    print(f"        {' '.join(point_overrides({k: v for k, v in best['param'].items() if k != 'search_idx'}))}")
    with contextlib.suppress(UsageError):  # one point has no picture
        print(f"picture {visualize_search(search, folder / 'search.png', ignore_keys=_others(best, given.metric))}")


def _others(best: dict[str, Any], metric: str) -> list[str]:
    return [name for name in best["result"] if name != metric]


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    try:
        return command(work, str(__doc__), arguments)
    except Interrupted as stop:
        return 128 + stop.signal


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
