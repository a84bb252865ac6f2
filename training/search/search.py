"""What every search shares: evaluations with their parameters, kept in a file, never done twice."""

import inspect
import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from runtime.errors import UsageError
from training.estimator import Interrupted
from training.search.plain import as_plain

Evaluated = dict[str, Any]  # {"param": {..., "search_idx": 3}, "result": {...}} or {"param": ..., "error": "..."}


class Search:
    """Calls `eval_fn(search_idx=n, **parameters)` for the parameters that a subclass's `_fit` chooses.

    eval_fn returns a dictionary or one value, kept as {"value": v}. A failed evaluation is recorded with its error and
    the search goes on. optimize_field: the result that counts, needed where there are several. best_mode: min or max.
    With `fit(save_dir)` every evaluation is in `<save_dir>/<name>.json` before the next begins; a search that was
    killed and is called again does only what was not finished, under the same search_idx. `fit(jobs=n)`: up to n
    evaluations at once, eval_fn being called from n threads.
    """

    in_turn = False  # whether each evaluation needs the one before

    def __init__(self, eval_fn: Callable[..., Any], name: str = "search", best_mode: str | None = None,
                 optimize_field: str | None = None):  # fmt: skip
        self.takes_any, self.arguments = taken_by(eval_fn)
        if best_mode not in (None, "min", "max"):
            raise UsageError(f"best_mode must be min or max, got {best_mode!r}.")
        self.eval_fn, self.name = eval_fn, name
        self.best_mode, self.optimize_field = best_mode, optimize_field
        self.save_dir: Path | None = None
        self.jobs = 1
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self.search_idx = 0
        self.search_summary: list[Evaluated] = []
        self._known: dict[str, Evaluated] = {}
        self._running: dict[str, Future] = {}
        self._begun: dict[str, dict[str, Any]] = {}  # the parameters of what began and has not ended, kept in the file

    def check_names(self, names: list[str]) -> None:
        """Raises UsageError for a parameter that eval_fn does not take."""
        unknown = [name for name in names if name not in self.arguments]
        if unknown and not self.takes_any:
            raise UsageError(f"eval_fn takes no argument {unknown[0]!r}; it takes {', '.join(self.arguments)}.")

    def fit(self, save_dir: str | Path | None = None, retry_failed: bool = False, jobs: int = 1) -> None:
        """Runs the search, or goes on with that in `save_dir`; retry_failed: evaluates anew what had failed."""
        if jobs < 1 or (jobs > 1 and self.in_turn):
            needed = "1, as each evaluation needs the one before" if self.in_turn else "at least 1"
            raise UsageError(f"jobs of {type(self).__name__} must be {needed}, got {jobs}.")
        self._forget()
        self.jobs = jobs
        self.save_dir = None if save_dir is None else Path(save_dir)
        if self.save_dir is not None:
            self.save_dir.mkdir(parents=True, exist_ok=True)
            self.load(self.save_dir, not_exist_ok=True)
        if retry_failed:
            self._known = {key: done for key, done in self._known.items() if "error" not in done}
        self._fit()

    def _fit(self) -> None:
        raise NotImplementedError

    def evaluate(self, **parameters: Any) -> dict[str, Any] | None:
        """The result for these parameters, from memory where they were evaluated before; None if that failed."""
        return self._evaluated(parameters).get("result")

    def _each(self, work: Callable[[Any], Any], items: Iterable[Any]) -> None:
        """Calls `work` for each item, `jobs` at once; the first exception stops what has not begun."""
        if self.jobs == 1:
            for item in items:
                work(item)
            return
        with ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _evaluated(self, parameters: dict[str, Any], marks: Callable[[], dict[str, Any]] = dict,
                   **extra: Any) -> Evaluated:  # fmt: skip
        """The record of an evaluation, with what `marks` gives after it; `extra` reaches eval_fn and is not kept."""
        parameters = as_plain(parameters, "parameter")
        key = key_of(parameters)
        with self._lock:
            if key in self._known:
                return self._known[key]
            other, mine = self._running.get(key), Future()
            if other is None:
                self._running[key] = mine
                parameters = self._begin(key, parameters)
        if other is not None:
            return other.result()
        try:
            done = self._call(parameters, extra)
        except BaseException as stop:  # a signal: this evaluation is not done
            with self._lock:
                del self._running[key]
            mine.set_exception(stop)
            raise
        done |= marks()
        self._end(key, done)
        mine.set_result(done)
        return done

    def _begin(self, key: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters with their search_idx, that of an earlier sitting if they began there."""
        if key not in self._begun:
            self.search_idx += 1
            self._begun[key] = {**parameters, "search_idx": self.search_idx}
            if self.save_dir is not None:
                self.save(self.save_dir)
        return self._begun[key]

    def _call(self, parameters: dict[str, Any], extra: dict[str, Any]) -> Evaluated:
        done: Evaluated = {"param": parameters}
        try:
            result = self.eval_fn(**parameters, **extra)
            done["result"] = as_plain(result if isinstance(result, Mapping) else {"value": result}, "result")
        except Interrupted:
            raise
        except Exception as error:
            done["error"] = sentence(error)
        return done

    def _end(self, key: str, done: Evaluated) -> None:
        with self._lock:
            self.search_summary.append(done)
            self.search_summary.sort(key=lambda one: one["param"]["search_idx"])
            self._known[key] = done
            del self._running[key], self._begun[key]
            if self.save_dir is not None:
                self.save(self.save_dir)
        outcome = done.get("error") or ", ".join(f"{name}={value}" for name, value in done["result"].items())
        given = ", ".join(f"{name}={value}" for name, value in done["param"].items() if name != "search_idx")
        print(f"{self.name} {done['param']['search_idx']}: {given} -> {outcome}")

    def field(self, optimize_field: str | None = None) -> str:
        """The name of the result that counts; UsageError where several could be meant."""
        if name := optimize_field or self.optimize_field:
            return name
        names = list(dict.fromkeys(name for done in self.search_summary for name in done.get("result", ())))
        if len(names) != 1:
            raise UsageError(
                f"optimize_field must name one of the results {', '.join(names) or '(none yet)'}, got None."
            )
        return names[0]

    def value_of(self, done: Evaluated, optimize_field: str | None = None) -> float:
        """The number that counts, NaN for a failed evaluation; UsageError if the result lacks it or is no number."""
        if "error" in done:
            return math.nan
        name, result = self.field(optimize_field), done["result"]
        value = result.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"optimize_field {name!r} must name a number among {', '.join(result)}, got {value!r}.")
        return float(value)

    def is_better(self, value: float, other: float) -> bool:
        """Whether a value beats another; NaN loses against everything."""
        if math.isnan(value) or math.isnan(other):
            return not math.isnan(value)
        return value > other if self.best_mode == "max" else value < other

    def get_best_results(self, best_mode: str | None = None, optimize_field: str | None = None) -> Evaluated:
        """The best evaluation {"param": ..., "result": ...}, the first of equals; failed and NaN ones don't count."""
        mode = best_mode or self.best_mode
        if mode not in ("min", "max"):
            raise UsageError(f"best_mode must be min or max, got {mode!r}.")
        if not self.search_summary:
            raise UsageError(f"{self.name} has evaluated nothing yet; call fit first.")
        valued = [(self.value_of(done, optimize_field), done) for done in self._complete()]
        valued = [(value, done) for value, done in valued if not math.isnan(value)]
        if not valued:
            first = next((done["error"] for done in self.search_summary if "error" in done), "every value is NaN")
            raise UsageError(f"none of the {len(self.search_summary)} evaluations of {self.name} succeeded: {first}")
        return (min if mode == "min" else max)(valued, key=lambda pair: pair[0])[1]

    def _complete(self) -> list[Evaluated]:
        return [done for done in self.search_summary if "result" in done and not done.get("pruned")]

    def get_search_summary(self) -> list[Evaluated]:
        """All evaluations in order, {"param": ..., "result" or "error": ...}."""
        return list(self.search_summary)

    def save(self, save_dir: str | Path) -> None:
        """Writes `<name>.json` in the folder, whole or not at all."""
        state = {"name": self.name, "best_mode": self.best_mode, "optimize_field": self.optimize_field}
        path = Path(save_dir) / f"{self.name}.json"
        temporary = path.with_name(f".{path.name}.partial")
        state |= {"search_summary": self.search_summary, "begun": list(self._begun.values())}
        temporary.write_text(json.dumps(state, indent=2) + "\n")
        temporary.replace(path)

    def load(self, load_dir: str | Path, not_exist_ok: bool = False) -> None:
        """Takes the evaluations of `<name>.json` in the folder, and its mode and field where none were given here."""
        path = Path(load_dir) / f"{self.name}.json"
        self._forget()
        if not path.exists() and not_exist_ok:
            return
        state = read_search(path)
        self.best_mode = self.best_mode or state.get("best_mode")
        self.optimize_field = self.optimize_field or state.get("optimize_field")
        self.search_summary = state["search_summary"]
        for done in self.search_summary:
            self._known[_key_without_index(done["param"])] = done
        self._begun = {_key_without_index(parameters): parameters for parameters in state.get("begun", [])}
        indices = [p["search_idx"] for p in (*(done["param"] for done in self.search_summary), *self._begun.values())]
        self.search_idx = max(indices, default=0)


def read_search(path: Path) -> dict[str, Any]:
    """The content of a search's file; UsageError where there is none or it holds something else."""
    if not path.is_file():
        raise UsageError(f"there is no search file {path}.")
    try:
        state = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path} is no search file: it is not JSON ({error}).") from error
    kept = state.get("search_summary") if isinstance(state, dict) else None
    if not isinstance(kept, list) or not all(isinstance(e, dict) and "search_idx" in e.get("param", {}) for e in kept):
        raise UsageError(f"{path} is no search file: it needs a list search_summary of evaluations with search_idx.")
    return state


def key_of(parameters: dict[str, Any]) -> str:
    """Parameters as text that is equal for equal ones."""
    return json.dumps(parameters, sort_keys=True)


def _key_without_index(parameters: dict[str, Any]) -> str:
    return key_of({name: value for name, value in parameters.items() if name != "search_idx"})


def sentence(error: Exception) -> str:
    """What is kept of an error: the sentence of a user's mistake, others with their type."""
    return str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"


def taken_by(function: Callable[..., Any]) -> tuple[bool, list[str]]:
    """Whether a function takes any keyword, and the names it takes beside search_idx; UsageError without search_idx."""
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if "search_idx" not in names and not takes_any:
        raise UsageError(f"eval_fn must take search_idx, the number of the evaluation; it takes {', '.join(names)}.")
    return takes_any, [name for name in names if name != "search_idx"]
