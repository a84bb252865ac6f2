"""Jumps along an average velocity: MeanFlow's sampler in one or several steps (arXiv 2505.13447, eq. 12)."""

import mlx.core as mx
import numpy as np

from runtime.op import AverageField
from solvers.base_solver import Grid, Solver, scalar


class Average(Solver):
    """x_t = x_r + (t - r) u(x_r, r, t), exact in any number of steps for the exact mean velocity u.

    steps: jumps from 0 to 1, on `grid`; one evaluation each.
    """

    average = True

    def __init__(self, steps: int = 1, grid: Grid = "uniform"):
        super().__init__(steps, grid)

    def march(self, field: AverageField, x: mx.array, grid: np.ndarray):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Yields the state at every grid point after the first."""
        for start, end in zip(grid[:-1], grid[1:], strict=True):
            r, t = scalar(start, x), scalar(end, x)
            self.evaluations += 1
            x = x + (t - r) * field(x, r, t)
            mx.eval(x)
            yield x
