"""Golden-section search for the best value of one parameter; Kiefer, Proc. AMS 4 (1953) 502."""

import math
from collections.abc import Callable
from typing import Any

from runtime.errors import UsageError
from training.search.search import Search

SHRINK = (math.sqrt(5) - 1) / 2  # 1/phi: what is left of the bracket after an iteration


class GoldenSection(Search):
    """The best x in [x_min, x_max] of a function with one optimum: two evaluations, then one for each iteration.

    After i iterations the optimum is known to (x_max - x_min) / phi^i. integer: whole numbers; the bracket stays real
    and its points are rounded, and where both round to one number what is left is tried one by one. log: the sections
    are of log x. eval_fn has one argument beside search_idx, or `param` names it. A failed evaluation counts as the
    worst value.
    """

    in_turn = True

    def __init__(self, eval_fn: Callable[..., Any], x_min: float, x_max: float, max_iter: int, best_mode: str,
                 optimize_field: str | None = None, integer: bool = True, name: str = "golden_section_search", *,
                 log: bool = False, param: str | None = None):  # fmt: skip
        super().__init__(eval_fn, name, best_mode, optimize_field)
        if best_mode is None:
            raise UsageError("best_mode must be min or max, got None.")
        if not x_min < x_max or (log and x_min <= 0):
            needed = "0 < x_min < x_max" if log else "x_min < x_max"
            raise UsageError(f"golden-section search needs {needed}, got {x_min} and {x_max}.")
        if integer and not (isinstance(x_min, int) and isinstance(x_max, int)):
            raise UsageError(f"x_min and x_max must be whole numbers with integer=True, got {x_min} and {x_max}.")
        if max_iter < 1:
            raise UsageError(f"max_iter must be at least 1, got {max_iter}.")
        if param is None and len(self.arguments) != 1:
            raise UsageError(
                f"eval_fn needs one argument beside search_idx, got {', '.join(self.arguments) or 'none'}."
            )
        self.param = param or self.arguments[0]
        self.check_names([self.param])
        self.x_min, self.x_max, self.max_iter, self.integer, self.log = x_min, x_max, max_iter, integer, log

    def _point(self, place: float) -> float | int:
        x = min(max(math.exp(place), self.x_min), self.x_max) if self.log else place
        return round(x) if self.integer else x

    def _value(self, x: float | int) -> float:
        return self.value_of(self._evaluated({self.param: x}))

    def _fit(self) -> None:
        low, high = (math.log(self.x_min), math.log(self.x_max)) if self.log else (self.x_min, self.x_max)
        width = high - low
        left, right = low + (1 - SHRINK) * width, low + SHRINK * width
        at_left, at_right = self._value(self._point(left)), self._value(self._point(right))
        for iteration in range(self.max_iter):
            if self.integer and self._point(left) == self._point(right):
                self._try_all(low, high, self.max_iter - iteration)
                return
            width *= SHRINK
            if self.is_better(at_left, at_right):
                high, right, at_right = right, left, at_left
                left = low + (1 - SHRINK) * width
                at_left = self._value(self._point(left))
            else:
                low, left, at_left = left, right, at_right
                right = low + SHRINK * width
                at_right = self._value(self._point(right))

    def _try_all(self, low: float, high: float, count: int) -> None:
        """Evaluates whole numbers of the bracket that were not yet, at most `count`."""
        first, last = (math.exp(low), math.exp(high)) if self.log else (low, high)
        tried = {done["param"][self.param] for done in self.search_summary}
        numbers = range(
            max(math.ceil(first - 1e-9), int(self.x_min)), min(math.floor(last + 1e-9), int(self.x_max)) + 1
        )
        for x in [x for x in numbers if x not in tried][:count]:
            self._value(x)
