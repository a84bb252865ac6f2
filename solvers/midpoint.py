"""The explicit midpoint method."""

from solvers.base_solver import Solver


class Midpoint(Solver):
    """The slope at the middle of an Euler half step: order 2, two evaluations a step."""

    order, a, b, c = 2, ((), (0.5,)), (0.0, 1.0), (0.0, 0.5)
