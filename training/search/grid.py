"""Searches whose points are known before the first evaluation: all combinations, or random draws."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from runtime.errors import UsageError
from training.search.search import Search
from training.search.space import Interval


class GridSearch(Search):
    """Evaluates all combinations of `params`, {name: list of values}; the last name varies fastest."""

    def __init__(self, eval_fn: Callable[..., Any], params: Mapping[str, Sequence], best_mode: str | None = None,
                 optimize_field: str | None = None, name: str = "grid_search"):  # fmt: skip
        super().__init__(eval_fn, name, best_mode, optimize_field)
        self.params = {key: _values(key, values) for key, values in params.items()}
        self.check_names(list(params))

    def _fit(self) -> None:
        points = itertools.product(*self.params.values())
        self._each(self._evaluated, [dict(zip(self.params, values, strict=True)) for values in points])


class RandomSearch(Search):
    """Evaluates `n` random draws of `params`, {name: list of values or Interval}.

    Draw i is a function of (seed, i) alone: a longer search begins with the shorter one's draws.
    """

    def __init__(self, eval_fn: Callable[..., Any], params: Mapping[str, Sequence | Interval], n: int,
                 best_mode: str | None = None, optimize_field: str | None = None, seed: int = 0,
                 name: str = "random_search"):  # fmt: skip
        super().__init__(eval_fn, name, best_mode, optimize_field)
        if n < 1:
            raise UsageError(f"n must be at least 1, got {n}.")
        self.params = {
            key: space if isinstance(space, Interval) else _values(key, space) for key, space in params.items()
        }
        self.n, self.seed = n, seed
        self.check_names(list(params))

    def draw(self, index: int) -> dict[str, Any]:
        """The parameters of a draw."""
        rng = np.random.default_rng([self.seed, index])
        return {
            name: space.draw(rng) if isinstance(space, Interval) else space[int(rng.integers(len(space)))]
            for name, space in self.params.items()
        }

    def _fit(self) -> None:
        self._each(self._evaluated, [self.draw(index) for index in range(self.n)])


def _values(name: str, values: Any) -> list:
    if isinstance(values, str | bytes) or not isinstance(values, Sequence | np.ndarray) or not len(values):
        raise UsageError(f"{name} needs a list of at least one value, got {values!r}.")
    return list(values)
