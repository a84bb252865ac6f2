"""What every search shares: evaluations with their parameters, kept in a file, never done twice."""

import inspect
import json
import math
from collections.abc import Callable, Mapping
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
    killed and is called again does only what was not finished, under the same search_idx.
    """

    def __init__(self, eval_fn: Callable[..., Any], name: str = "search", best_mode: str | None = None,
                 optimize_field: str | None = None):  # fmt: skip
        self.takes_any, self.arguments = taken_by(eval_fn)
        if best_mode not in (None, "min", "max"):
            raise UsageError(f"best_mode must be min or max, got {best_mode!r}.")
        self.eval_fn, self.name = eval_fn, name
        self.best_mode, self.optimize_field = best_mode, optimize_field
        self.save_dir: Path | None = None
        self._forget()

    def _forget(self) -> None:
        self.search_idx = 0
        self.search_summary: list[Evaluated] = []
        self._known: dict[str, Evaluated] = {}

    def check_names(self, names: list[str]) -> None:
        """Raises UsageError for a parameter that eval_fn does not take."""
        unknown = [name for name in names if name not in self.arguments]
        if unknown and not self.takes_any:
            raise UsageError(f"eval_fn takes no argument {unknown[0]!r}; it takes {', '.join(self.arguments)}.")

    def fit(self, save_dir: str | Path | None = None, retry_failed: bool = False) -> None:
        """Runs the search, or goes on with that in `save_dir`; retry_failed: evaluates anew what had failed."""
        self._forget()
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

    def _evaluated(self, parameters: dict[str, Any], **extra: Any) -> Evaluated:
        """The record of an evaluation; `extra` reaches eval_fn and is not kept."""
        parameters = as_plain(parameters, "parameter")
        key = key_of(parameters)
        if key in self._known:
            return self._known[key]
        index = self.search_idx + 1
        done: Evaluated = {"param": {**parameters, "search_idx": index}}
        try:
            result = self.eval_fn(**parameters, search_idx=index, **extra)
            done["result"] = as_plain(result if isinstance(result, Mapping) else {"value": result}, "result")
        except Interrupted:
            raise  # a signal: this evaluation is not done
        except Exception as error:
            done["error"] = f"{type(error).__name__}: {error}"
        done |= self.marks()
        self.search_idx = index
        self.search_summary.append(done)
        self._known[key] = done
        if self.save_dir is not None:
            self.save(self.save_dir)
        outcome = done.get("error") or ", ".join(f"{name}={value}" for name, value in done["result"].items())
        print(f"{self.name} {index}: {', '.join(f'{k}={v}' for k, v in parameters.items())} -> {outcome}")
        return done

    def marks(self) -> dict[str, Any]:
        """What a subclass adds to the record of the evaluation just made."""
        return {}

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
        temporary.write_text(json.dumps({**state, "search_summary": self.search_summary}, indent=2) + "\n")
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
            self.search_idx = max(self.search_idx, done["param"]["search_idx"])
            self._known[key_of({k: v for k, v in done["param"].items() if k != "search_idx"})] = done


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


def taken_by(function: Callable[..., Any]) -> tuple[bool, list[str]]:
    """Whether a function takes any keyword, and the names it takes beside search_idx; UsageError without search_idx."""
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if "search_idx" not in names and not takes_any:
        raise UsageError(f"eval_fn must take search_idx, the number of the evaluation; it takes {', '.join(names)}.")
    return takes_any, [name for name in names if name != "search_idx"]
