"""The classical Runge-Kutta method."""

from solvers.base_solver import Solver


class RK4(Solver):
    """Four slopes weighted 1, 2, 2, 1: order 4, four evaluations a step."""

    order = 4
    a = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
    b = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
    c = (0.0, 0.5, 0.5, 1.0)
