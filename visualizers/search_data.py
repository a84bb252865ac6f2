"""A search's evaluations as columns, from its file or the search itself."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UsageError, closest

Rows = list[dict[str, Any]]


class SearchData:
    """A search's successful evaluations as columns.

    search: a search, its file or the object in it, or the list of its evaluations; pruned ones are left out.
    `params` are the parameters that vary, `results` the results that are numbers, without those of `ignore_keys`;
    `columns[name]` holds n values.
    """

    def __init__(self, search: Any, ignore_keys: str | Sequence[str] = ()):
        state = _state(search)
        self.name, known = state.get("name") or "search", state["search_summary"]
        rows = [row for row in known if "result" in row and not row.get("pruned")]  # a pruned run's value is early
        self.failed = sum("error" in row for row in known)
        self.pruned = len(known) - len(rows) - self.failed
        if not rows:
            raise UsageError(f"{self.name} has no successful evaluation to draw, got {self.failed} failed ones.")
        ignored = {ignore_keys} if isinstance(ignore_keys, str) else set(ignore_keys)
        known = [name for part in ("param", "result") for name in rows[0][part]]
        for name in ignored - set(known):
            raise UsageError(f"ignore_keys {name!r} is no key of the search; nearest: {closest(name, known)}.")
        self.count = len(rows)
        self.columns: dict[str, list] = {}
        self.params = self._gather(rows, "param", {"search_idx", *ignored})
        self.params = [name for name in self.params if len(set(map(repr, self.columns[name]))) > 1]
        results = self._gather(rows, "result", ignored)
        self.results = [name for name in results if all(is_number(v) or v is None for v in self.columns[name])]
        if not self.params or not self.results:
            raise UsageError(f"{self.name} needs a parameter that varies and a result that is a number to be drawn.")
        self.mode, field = state.get("best_mode"), state.get("optimize_field")
        self.field = field if field in self.results else self.results[0]

    def _gather(self, rows: Rows, part: str, ignored: set[str]) -> list[str]:
        names = [name for name in dict.fromkeys(n for row in rows for n in row[part]) if name not in ignored]
        self.columns |= {name: [row[part].get(name) for row in rows] for name in names}
        return names

    def best_row(self, result: str) -> int | None:
        """The row with the best value of a result; None without a mode."""
        values = np.array([math.nan if v is None else v for v in self.columns[result]], float)
        if self.mode not in ("min", "max") or np.isnan(values).all():
            return None
        return int(np.nanargmin(values) if self.mode == "min" else np.nanargmax(values))

    def numeric(self, name: str) -> bool:
        """Whether a column holds numbers only."""
        return all(is_number(value) for value in self.columns[name])

    def logarithmic(self, name: str) -> bool:
        """Whether a column of numbers spans two decades or more, all above 0."""
        values = self.columns[name]
        return self.numeric(name) and min(values) > 0 and max(values) / min(values) >= 100

    def places(self, name: str) -> tuple[np.ndarray, list[str] | None]:
        """A column's values as numbers (n,), and the names of 0, 1, ... where they are categories."""
        if self.numeric(name):
            return np.array(self.columns[name], float), None
        names = sorted({str(value) for value in self.columns[name]})
        return np.array([names.index(str(value)) for value in self.columns[name]], float), names


def is_number(value: Any) -> bool:
    """Whether a value is an int or a float."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _state(search: Any) -> dict[str, Any]:
    if isinstance(search, Mapping):
        return dict(search)
    if isinstance(search, list):
        return {"search_summary": search}
    if hasattr(search, "get_search_summary"):
        kept = {name: getattr(search, name, None) for name in ("name", "best_mode", "optimize_field")}
        return {**kept, "search_summary": search.get_search_summary()}
    try:
        state = json.loads(Path(search).read_text())
    except FileNotFoundError as error:
        raise UsageError(f"there is no search file {search}.") from error
    except ValueError as error:
        raise UsageError(f"{search} is no search file: it is not JSON ({error}).") from error
    if not isinstance(state, dict) or "search_summary" not in state:
        raise UsageError(f"{search} is no search file: it needs search_summary.")
    return state
