"""Heun's method (explicit trapezoid)."""

from solvers.base_solver import Solver


class Heun(Solver):
    """The mean of the slopes at both ends of an Euler step: order 2, two evaluations a step."""

    order, a, b, c = 2, ((), (1.0,)), (0.5, 0.5), (0.0, 1.0)
