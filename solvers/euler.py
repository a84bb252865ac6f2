"""Euler's method."""

from solvers.base_solver import Solver


class Euler(Solver):
    """x + h f(x, t): order 1, one evaluation a step."""

    order, a, b, c = 1, ((),), (1.0,), (0.0,)
