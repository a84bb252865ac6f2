"""Fixed-step explicit Runge-Kutta solvers: a solver is a tableau; this file turns it into `solve`."""

from collections.abc import Sequence
from typing import Literal

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError
from runtime.op import Field

Grid = Literal["uniform", "cosine", "quadratic"]
Times = Sequence[float] | np.ndarray


def scalar(value: float, x: mx.array) -> mx.array:
    """A 0-d array in x's dtype: a Python float would make a compiled field trace again at every value."""
    return mx.array(value, dtype=x.dtype)


def combine(x: mx.array, h: mx.array, weights: Sequence[float], slopes: Sequence[mx.array]) -> mx.array:
    """x + h * sum of weight * slope, skipping zero weights."""
    terms = [weight * slope for weight, slope in zip(weights, slopes, strict=True) if weight]
    return x + h * sum(terms[1:], terms[0]) if terms else x


class Solver:
    """An explicit Runge-Kutta method on a fixed grid.

    Subclasses give the tableau (stage rows `a`, weights `b`, nodes `c`) and its `order`. steps: intervals between start
    and end. grid: their spacing, uniform, cosine (fine at both ends) or quadratic (fine at the start).
    evaluations: calls of the field in the last `solve`. average: the field is a mean velocity over an interval,
    (x, r, t), not an instantaneous one, (x, t).
    """

    average: bool = False
    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]

    def __init__(self, steps: int = 50, grid: Grid = "uniform"):
        if steps < 1:
            raise UsageError(f"{type(self).__name__}: steps must be at least 1, got {steps}.")
        self.steps, self.grid, self.evaluations = steps, grid, 0

    def times(self, start: float = 0.0, end: float = 1.0) -> np.ndarray:
        """The steps + 1 grid points (float64), the first exactly `start` and the last exactly `end`."""
        s = np.linspace(0.0, 1.0, self.steps + 1)
        s = {"uniform": s, "cosine": (1 - np.cos(np.pi * s)) / 2, "quadratic": s * s}[self.grid]
        points = start + (end - start) * s
        points[-1] = end
        return points

    def solve(self, field: Field, x: mx.array, times: Times | None = None, path: bool = False) -> mx.array:
        """Carries x (B, ...) through dx/dt = field(x, t) along `times` (default: the grid from 0 to 1), in their order.

        Descending times integrate backward. Returns the last state, or with path=True all of them (N+1, B, ...).
        Works in float32 (float64 where x is).
        """
        grid = check_times(self.times() if times is None else times)
        x = x if x.dtype == mx.float64 else x.astype(mx.float32)
        self.evaluations = 0
        states = [x, *self.march(field, x, grid)] if path else None
        if states:
            return mx.stack(states)
        for state in self.march(field, x, grid):
            x = state
        return x

    def march(self, field: Field, x: mx.array, grid: np.ndarray):
        """Yields the state at every grid point after the first; each is evaluated, so that the graph does not grow."""
        for start, end in zip(grid[:-1], grid[1:], strict=True):
            x, _ = self.stages(field, x, start, end - start)
            mx.eval(x)
            yield x

    def stages(self, field: Field, x: mx.array, t: float, h: float, first: mx.array | None = None):
        """One step of size h from (x, t): the new state and the slopes; `first` is the slope at (x, t) if known."""
        step = scalar(h, x)
        slopes = [] if first is None else [first]
        for row, node in list(zip(self.a, self.c, strict=True))[len(slopes) :]:
            slopes.append(self.slope(field, combine(x, step, row, slopes), t + node * h))
        return combine(x, step, self.b, slopes), slopes

    def slope(self, field: Field, x: mx.array, t: float) -> mx.array:
        """The field at (x, t), counted."""
        self.evaluations += 1
        return field(x, scalar(t, x))


def check_times(times: Times) -> np.ndarray:
    """The times as float64; raises UsageError unless there are two or more, all ascending or all descending."""
    grid = np.asarray(times, dtype=np.float64)
    steps = np.diff(grid)
    if grid.ndim != 1 or len(grid) < 2 or not ((steps > 0).all() or (steps < 0).all()):
        raise UsageError(
            f"solver times must be two or more numbers, all ascending or all descending; got {grid.tolist()}."
        )
    return grid
