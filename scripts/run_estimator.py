"""Runs a file's get_estimator, and compares, draws and lists what was run.

usage: python scripts/run_estimator.py train|test|run FILE [--epochs 2 ...]
       python scripts/run_estimator.py logs FOLDER|FILE ... | plot SEARCH.json | history      (each with --help)

  train FILE             get_estimator(...).fit()
  test FILE              get_estimator(...).test()
  run FILE               the file's fastestimator_run(...), or fit where there are training data, test where test data

Every other --name VALUE is an argument of get_estimator, read as its annotation or default says.
  --hyperparameters F    arguments in a .json or .yaml file; the command line's win
  --summary NAME         keep the metrics in OUTPUT_DIR/NAME/metrics.jsonl and summary.json
  --output_dir outputs   where
"""

import argparse
import contextlib
import importlib.util
import json
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
from runtime.errors import UsageError
from scripts import run_history
from scripts.hyperparameters import arguments_for, read_file
from training.checkpoint import provenance
from training.estimator import Interrupted
from training.search.plain import as_plain
from training.signals import caught
from visualizers import search as search_pictures
from visualizers.canvas import write
from visualizers.logs import chosen, compare_runs, read_runs

DRAWINGS = {
    "auto": search_pictures.visualize_search,
    "cartesian": search_pictures.visualize_cartesian,
    "heatmap": search_pictures.visualize_heatmap,
    "parallel": search_pictures.visualize_parallel_coordinates,
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are UsageErrors."""

    def error(self, message: str) -> NoReturn:
        """Raises UsageError with one sentence."""
        raise UsageError(f"{message}; see --help.")


def parser() -> Parser:
    """The command line."""
    outer = Parser(usage=str(__doc__).split("usage: ")[1], allow_abbrev=False)
    commands = outer.add_subparsers(dest="command", required=True, parser_class=Parser)
    for name in ("train", "test", "run"):
        one = commands.add_parser(name, allow_abbrev=False, usage=str(__doc__).split("usage: ")[1])
        one.add_argument("file")
        one.add_argument("--hyperparameters")
        one.add_argument("--summary")
        one.add_argument("--output_dir", default="outputs")
    logs = commands.add_parser("logs", allow_abbrev=False, description="Runs beside each other, a panel a metric.")
    logs.add_argument("places", nargs="+", metavar="FOLDER|FILE", help="metrics.jsonl, Summary or Experiment, or above")
    logs.add_argument("--smooth", type=float, default=0.0, help="weight of the moving average, 0 to below 1")
    logs.add_argument("--group_by", help='regular expression: runs of one first group become mean and band; "_n"')
    which = logs.add_mutually_exclusive_group()
    which.add_argument("--ignore", nargs="+", default=[], help="metrics to leave out, also patterns such as perf/*")
    which.add_argument("--include", nargs="+", default=[], help="metrics to draw, none else")
    logs.add_argument("--share_legend", choices=("true", "false"), type=str.lower, default="true")
    logs.add_argument("--save", help="the picture; left out: logs.png in the (first) folder")
    plot = commands.add_parser("plot", allow_abbrev=False, description="A search's picture.")
    plot.add_argument("search", metavar="SEARCH.json")
    plot.add_argument("--draw", choices=tuple(DRAWINGS), default="auto")
    plot.add_argument("--title")
    plot.add_argument("--ignore", nargs="+", default=[], help="parameters and results to leave out")
    plot.add_argument("--color_by", help="the result that colours the lines of parallel")
    plot.add_argument("--save", help="the picture; left out: beside the file, as .png")
    history = commands.add_parser("history", allow_abbrev=False, description="What was run here, newest first.")
    history.add_argument("--limit", type=int, default=15)
    history.add_argument("--filter", default="", help="regular expression on an entry's JSON line")
    history.add_argument("--errors", action="store_true", help="only runs that failed")
    history.add_argument("--json", action="store_true", help="whole entries, one a line")
    return outer


def opened(path: str) -> ModuleType:
    """The module in a file, importable by its stem (worker processes need that)."""
    file = Path(path).resolve()
    if not file.is_file() or file.suffix != ".py":
        raise UsageError(f"there is no Python file {path}.")
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UsageError(f"{path}, line {error.lineno}: {error.msg}.") from error
    return module


def run(given: argparse.Namespace, words: list[str]) -> None:
    """Trains or tests, and adds to the history whatever came of it."""
    began = time.perf_counter()
    entry: dict[str, Any] = {"command": given.command, "file": str(Path(given.file).resolve()), "arguments": {}}
    module = opened(given.file)
    whole = getattr(module, "fastestimator_run", None) if given.command == "run" else None
    function = whole or getattr(module, "get_estimator", None)
    if function is None:
        raise UsageError(f"{given.file} defines no get_estimator; needed: a function that returns an Estimator.")
    stored = read_file(given.hyperparameters) if given.hyperparameters else {}
    arguments = arguments_for(function, words, stored)
    entry["arguments"] = arguments
    try:
        result = function(**arguments)
        if whole is None:
            entry["result"] = worked(result, given)
            for name, value in entry["result"].items():
                print(f"{name:<32}{value:>12.5g}" if isinstance(value, float) else f"{name:<32}{value!s:>12}")
    except BaseException as error:
        told = str(error).splitlines() or [""]
        entry["error"] = f"{type(error).__name__}: {told[0]}"
        raise
    finally:
        entry |= {"seconds": round(time.perf_counter() - began, 2), "versions": provenance()}
        with contextlib.suppress(OSError):  # a home that can't be written must not lose the run
            run_history.add(entry)


def worked(estimator: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Fits, tests or both; returns the last values of the metrics."""
    if not hasattr(estimator, "fit"):
        raise UsageError(f"get_estimator must return an Estimator, got {type(estimator).__name__}.")
    folder = None if given.summary is None else new_folder(Path(given.output_dir) / given.summary)
    values: dict[str, Any] = {}
    sources = estimator.pipeline.sources if given.command == "run" else {given.command}
    with caught(estimator):
        if "train" in sources:
            values |= estimator.fit().latest
        if "test" in sources:
            values |= estimator.test().latest
    if folder is not None:
        keep(estimator.summary, values, folder)
    return {name: value for name, value in as_plain(values, "result").items() if isinstance(value, int | float | str)}


def new_folder(folder: Path) -> Path:
    """The folder of a summary, refused where something lies in it."""
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} exists already; choose another --summary or remove it.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep(summary: Any, values: dict[str, Any], folder: Path) -> None:
    """Writes the rows of a summary as metrics.jsonl, its end as summary.json."""
    rows = "".join(json.dumps(as_plain(row, "row")) + "\n" for row in summary.history)
    end = {
        "run_name": folder.name,
        "steps": summary.steps,
        "reason": summary.reason,
        "metrics": as_plain(values, "metric"),
    }
    write(folder / "metrics.jsonl", lambda file: file.write_text(rows))
    write(folder / "summary.json", lambda file: file.write_text(json.dumps({**end, **provenance()}, indent=2) + "\n"))
    print(f"record  {folder}/metrics.jsonl, summary.json")


def logs(given: argparse.Namespace) -> None:
    """Draws runs beside each other."""
    runs = read_runs(given.places)
    known = sorted({name for series in runs.values() for name in series} - {"time"})
    first = Path(given.places[0])
    save = given.save or (first if first.is_dir() else first.parent) / "logs.png"
    metrics = chosen(known, given.ignore, given.include)
    print(compare_runs(runs, save, metrics, given.smooth, given.group_by, given.share_legend == "true"))


def plot(given: argparse.Namespace) -> None:
    """Draws a search."""
    save = given.save or Path(given.search).with_suffix(".png")
    if given.color_by is not None and given.draw != "parallel":
        raise UsageError(f"--color_by is for --draw parallel, got --draw {given.draw}.")
    more = {} if given.color_by is None else {"color_by": given.color_by}
    print(DRAWINGS[given.draw](given.search, save, given.title, given.ignore, **more))


def history(given: argparse.Namespace) -> None:
    """Lists what was run."""
    found = run_history.entries(given.limit, given.filter, given.errors)
    print("\n".join([json.dumps(entry) for entry in found] if given.json else run_history.table(found)))


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status: 0, 2 for the user's mistakes, 1 for an error in the file's code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(str(__doc__).strip())
        return 0 if arguments else 2
    try:
        given, words = parser().parse_known_args(arguments)
        if given.command in ("train", "test", "run"):
            run(given, words)
        elif words:
            raise UsageError(f"{given.command} takes no {words[0]!r}; see --help.")
        else:
            {"logs": logs, "plot": plot, "history": history}[given.command](given)
    except (UsageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        return 128 + stop.signal
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
