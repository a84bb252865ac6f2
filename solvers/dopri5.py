"""Adaptive Dormand-Prince 5(4) with a PI step controller, landing exactly on the requested times."""

import math
from typing import cast

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError
from runtime.op import Field
from solvers.base_solver import Grid, Solver, combine

SAFETY, LEAST, MOST = 0.9, 0.2, 10.0  # bounds on how much a step may shrink or grow
ALPHA, BETA = 0.17, 0.04  # exponents of this error and the last one (Hairer, Norsett, Wanner I, DOPRI5's own)


class Dopri5(Solver):
    """Dormand and Prince (1980), order 5 with an embedded order 4 estimate; the last slope is the next step's first.

    rtol, atol: a step is accepted when the root mean square over the whole batch of error / (atol + rtol |x|) is at
    most 1. max_steps: attempted steps of one solve. steps, grid: only the points at which path=True keeps the state.
    """

    order = 5
    a = (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    )
    b = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0)
    c = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
    # b minus the weights of order 4
    e = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

    def __init__(
        self,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        max_steps: int = 1000,
        steps: int = 1,
        grid: Grid = "uniform",
    ):
        super().__init__(steps, grid)
        if rtol < 0 or atol <= 0:
            raise UsageError(f"Dopri5: rtol must be at least 0 and atol above 0, got {rtol} and {atol}.")
        self.rtol, self.atol, self.max_steps = rtol, atol, max_steps
        self.accepted = self.rejected = 0

    def march(self, field: Field, x: mx.array, grid: np.ndarray):
        """Yields the state at every grid point after the first."""
        self.accepted = self.rejected = 0
        t, last_error = float(grid[0]), 1.0
        slope = self.slope(field, x, t)
        h = self.first_step(field, x, t, slope, float(grid[-1]) - t)
        for goal in map(float, grid[1:]):
            while t != goal:
                lands = abs(h) >= abs(goal - t) * (1 - 1e-9)
                step = goal - t if lands else h
                self.check_step(t, step)
                new, slopes = self.stages(field, x, t, step, first=slope)
                error = self.norm(combine(mx.zeros_like(x), mx.array(step, x.dtype), self.e, slopes), x, new)
                if not math.isfinite(error):
                    error = 1e10  # the field blew up: take a much smaller step
                if error > 1:
                    self.rejected += 1
                    h = step * max(LEAST, SAFETY * error ** -(1 / 5))
                    continue
                self.accepted += 1
                grow = SAFETY * max(error, 1e-10) ** -ALPHA * last_error**BETA
                proposed = step * min(MOST, max(LEAST, grow))
                # A step cut short to land on a requested time must not shorten the steps after it.
                h = proposed if not lands or abs(proposed) > abs(h) else h
                last_error = max(error, 1e-4)
                x, slope, t = new, slopes[-1], goal if lands else t + step
            yield x

    def check_step(self, t: float, h: float) -> None:
        """Raises UsageError when the steps are used up or have become too small to move t."""
        tried = self.accepted + self.rejected
        advice = f"rtol={self.rtol}, atol={self.atol}: loosen them, or check the field for NaN or a singularity"
        if tried >= self.max_steps:
            raise UsageError(f"Dopri5 reached t={t:.6g} after max_steps={self.max_steps} attempted steps ({advice}).")
        if abs(h) < 1e-12:
            raise UsageError(f"Dopri5 needs a step of {abs(h):.1e} at t={t:.6g}, too small to take ({advice}).")

    def norm(self, error: mx.array, x: mx.array, new: mx.array) -> float:
        """Root mean square of the error over its tolerance, over the whole batch."""
        scale = self.atol + self.rtol * mx.maximum(mx.abs(x), mx.abs(new))
        return cast(float, mx.sqrt(mx.mean(mx.square(error / scale))).item())

    def first_step(self, field: Field, x: mx.array, t: float, slope: mx.array, length: float) -> float:
        """A first step from the sizes of x, its slope and the slope's change (Hairer, Norsett, Wanner I, II.4)."""
        size, speed = self.norm(x, x, x), self.norm(slope, x, x)
        if not math.isfinite(speed):
            raise UsageError(f"Dopri5: the field is not finite at its start, t={t:.6g}.")
        guess = 0.01 * size / speed if size > 1e-5 and speed > 1e-5 else 1e-6
        guess = math.copysign(min(guess, abs(length)), length)
        after = self.slope(field, x + mx.array(guess, x.dtype) * slope, t + guess)
        bend = self.norm(after - slope, x, x) / abs(guess)
        largest = max(speed, bend)
        better = (0.01 / largest) ** (1 / 5) if largest > 1e-15 else max(1e-6, abs(guess) * 1e-3)
        return math.copysign(min(100 * abs(guess), better, abs(length)), length)
