"""Every solver: its order on ODEs with known answers, its number of steps and evaluations, forward then backward.

float64, whose sums and products MLX computes in full on the CPU; the fields use nothing else.
"""

import math

import mlx.core as mx
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from runtime.errors import UsageError
from solvers.dopri5 import Dopri5
from solvers.euler import Euler
from solvers.heun import Heun
from solvers.midpoint import Midpoint
from solvers.rk4 import RK4

FIXED = [Euler, Midpoint, Heun, RK4]


@pytest.fixture(autouse=True)
def on_cpu():
    with mx.stream(mx.cpu):
        yield


def rotation(x, t):
    return 2 * mx.stack([-x[:, 1], x[:, 0]], axis=1)


def logistic(x, t):
    return 3 * x * (1 - x)


def timed(x, t):
    return 2 * t * x


START = np.array([[0.2, 0.5], [0.7, 0.1]])
TURN = np.array([[math.cos(2), -math.sin(2)], [math.sin(2), math.cos(2)]])
ANSWERS = {
    rotation: START @ TURN.T,
    logistic: 1 / (1 + (1 / START - 1) * math.exp(-3)),
    timed: START * math.e,
}


def error(solver, field):
    end = solver.solve(field, mx.array(START, dtype=mx.float64))
    return np.abs(np.array(end) - ANSWERS[field]).max()


@pytest.mark.parametrize("field", ANSWERS)
@pytest.mark.parametrize("solver", FIXED)
def test_error_falls_with_the_order(solver, field):
    measured = math.log2(error(solver(steps=32), field) / error(solver(steps=64), field))
    assert abs(measured - solver.order) < 0.15


@pytest.mark.parametrize("field", ANSWERS)
def test_dopri5_fixed_steps_have_order_five(field):
    def run(steps):
        solver, x = Dopri5(), mx.array(START, dtype=mx.float64)
        for i in range(steps):
            x, _ = solver.stages(field, x, i / steps, 1 / steps)
        return np.abs(np.array(x) - ANSWERS[field]).max()

    assert abs(math.log2(run(16) / run(32)) - 5) < 0.3


def test_dopri5_error_weights_sum_to_zero_and_rows_to_nodes():
    assert abs(sum(Dopri5.e)) < 1e-15
    assert np.allclose([sum(row) for row in Dopri5.a], Dopri5.c, atol=1e-14)
    assert Dopri5.a[-1] == Dopri5.b[:-1]  # first same as last


@pytest.mark.parametrize("solver", FIXED)
@pytest.mark.parametrize("grid", ["uniform", "cosine", "quadratic"])
def test_takes_the_steps_of_its_grid(solver, grid):
    seen = []

    def field(x, t):
        seen.append(t.item())
        return mx.ones_like(x)

    tool = solver(steps=7, grid=grid)
    states = tool.solve(field, mx.zeros((3, 2)), path=True)
    times = tool.times()
    assert states.shape == (8, 3, 2)
    assert times[0] == 0.0 and times[-1] == 1.0 and (np.diff(times) > 0).all()
    assert np.allclose(np.array(states)[:, 0, 0], times, atol=1e-6)  # dx/dt = 1: the state is the time
    assert tool.evaluations == len(seen) == 7 * len(solver.c)
    assert max(seen) <= 1.0
    assert tool.times(0.3, 0.9)[-1] == 0.9


@pytest.mark.parametrize(
    "solver", [Euler(400), Midpoint(100), Heun(100), RK4(20), Dopri5()], ids=lambda s: type(s).__name__
)
def test_forward_then_backward_returns(solver):
    x = mx.array(START, dtype=mx.float64)
    back = solver.solve(logistic, solver.solve(logistic, x), solver.times(1.0, 0.0))
    assert np.abs(np.array(back) - START).max() < (2e-2 if solver.order == 1 else 1e-3)


@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-9])
def test_dopri5_meets_its_tolerance(rtol):
    solver = Dopri5(rtol=rtol, atol=rtol)
    for field in ANSWERS:
        assert error(solver, field) < 20 * rtol
        # one slope to start, one for the first step size, six for each attempt
        assert solver.evaluations == 2 + 6 * (solver.accepted + solver.rejected)
    assert error(Dopri5(rtol=1e-9, atol=1e-9), rotation) < error(Dopri5(rtol=1e-3, atol=1e-3), rotation)


def test_dopri5_spends_its_steps_where_the_field_is_fast():
    def stiff_start(x, t):  # x = 1 / (t + 0.01): a slope of -1e4 at t=0, of -1 at t=1
        return -x * x

    solver = Dopri5(rtol=1e-7, atol=1e-7)
    end = solver.solve(stiff_start, mx.full((1, 1), 100.0, dtype=mx.float64))
    assert abs(end.item() - 1 / 1.01) < 1e-6
    # the same formulas in scipy, with its own step control
    reference = solve_ivp(lambda t, x: -x * x, (0, 1), [100.0], method="RK45", rtol=1e-7, atol=1e-7)
    assert solver.accepted < 1.2 * len(reference.t)


def test_dopri5_lands_on_the_requested_times_and_returns_there():
    times = [0.0, 0.1, 0.1001, 0.75, 1.0]
    states = Dopri5(rtol=1e-9, atol=1e-9).solve(timed, mx.ones((1, 1), dtype=mx.float64), times, path=True)
    assert np.allclose(np.array(states).ravel(), np.exp(np.square(times)), rtol=1e-7)
    few, plain = Dopri5(rtol=1e-9, atol=1e-9), Dopri5(rtol=1e-9, atol=1e-9)
    few.solve(timed, mx.ones((1, 1), dtype=mx.float64), [0.0, 0.1, 0.1 + 1e-10, 1.0])
    plain.solve(timed, mx.ones((1, 1), dtype=mx.float64))
    assert few.accepted <= plain.accepted + 3  # a short landing step does not shorten its followers


def test_dopri5_stops_with_a_sentence():
    with pytest.raises(UsageError, match="max_steps=10"):
        Dopri5(rtol=1e-9, atol=1e-9, max_steps=10).solve(lambda x, t: 200 * (t - x), mx.ones((1, 1)))
    with pytest.raises(UsageError, match="not finite"):
        Dopri5().solve(lambda x, t: x * math.nan, mx.ones((1, 1)))
    with pytest.raises(UsageError, match="at t=0.5"):  # 1 / (0.5 - t)^2 has no solution past 0.5
        Dopri5().solve(lambda x, t: x * x, mx.full((1, 1), 2.0))


@pytest.mark.parametrize("times", [[0.0], [0.0, 0.5, 0.5], [0.0, 1.0, 0.5]])
def test_bad_times_are_refused(times):
    with pytest.raises(UsageError, match="ascending"):
        Euler().solve(rotation, mx.ones((1, 2)), times)


@pytest.mark.parametrize("solver", [RK4(12), Dopri5()], ids=["rk4", "dopri5"])
def test_a_compiled_field_is_traced_once(solver):
    traces = []

    def field(x, t):
        traces.append(1)
        return logistic(x, t)

    solver.solve(mx.compile(field), mx.array(START, dtype=mx.float32))
    assert len(traces) == 1


def test_half_precision_states_are_carried_in_float32():
    assert Euler(4).solve(logistic, mx.full((2, 2), 0.5, dtype=mx.bfloat16)).dtype == mx.float32
