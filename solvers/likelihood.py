"""Log-likelihood of data under a flow: state and divergence carried together from t=1 to t=0."""

import math
from typing import Literal

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError
from runtime.op import Field
from solvers.base_solver import Solver


def normal_log_density(x: mx.array) -> mx.array:
    """log N(x; 0, I) in nats, (B, D) -> (B,)."""
    return -0.5 * mx.square(x).sum(axis=1) - 0.5 * x.shape[1] * math.log(2 * math.pi)


def log_likelihood(
    field: Field,
    x1: mx.array,
    solver: Solver,
    method: Literal["exact", "hutchinson"] = "exact",
    key: mx.array | None = None,
    probes: int = 1,
) -> mx.array:
    """log p(x1) in nats, (B, ...) -> (B,), with a standard normal at t=0 (arXiv 1806.07366, eq. 8; 1810.01367).

    exact: D forward derivatives per evaluation, D the size of a sample. hutchinson: `probes` of them, along random
    signs drawn with `key` and kept for the whole solve (unbiased). Steps follow the solver's grid, backward.
    """
    if method == "hutchinson" and (key is None or probes < 1):
        raise UsageError(f"hutchinson needs a key and at least 1 probe, got key={key} and probes={probes}.")
    count, size = x1.shape[0], math.prod(x1.shape[1:])
    if method == "exact":
        directions = [mx.broadcast_to(row, (count, size)) for row in mx.eye(size, dtype=x1.dtype)]
        weight = 1.0
    else:
        signs = mx.random.bernoulli(0.5, (probes, count, size), key=key).astype(x1.dtype) * 2 - 1
        directions, weight = list(signs), 1 / probes

    def flat_field(x: mx.array, t: mx.array) -> mx.array:
        return field(x.reshape(x1.shape), t).reshape(count, size)

    def augmented(state: mx.array, t: mx.array) -> mx.array:
        x, divergence = state[:, :size], mx.zeros((count, 1), dtype=state.dtype)
        for direction in directions:
            (velocity,), (change,) = mx.jvp(lambda y: flat_field(y, t), [x], [direction])
            divergence = divergence + weight * (direction * change).sum(axis=1, keepdims=True)
        return mx.concatenate([velocity, divergence], axis=1)

    start = mx.concatenate([x1.reshape(count, size), mx.zeros((count, 1), dtype=x1.dtype)], axis=1)
    end = solver.solve(augmented, start, solver.times()[::-1])
    return normal_log_density(end[:, :size]) + end[:, size]


def carried(field: Field, x0: mx.array, solver: Solver) -> tuple[mx.array, mx.array]:
    """The states that a solver of fixed steps carries x0 (..., D) to, and ln |det dx1 / dx0|, (...).

    Tangents go through the same steps as the state, so that the second is that of the solver's own map, however few
    its steps are: a density of x0 over the determinant is exactly that of x1 as long as steps are small enough for the
    map to be one to one.
    """
    size = x0.shape[-1]

    def both(state: mx.array, t: mx.array) -> mx.array:
        x, tangents = state[..., :size], state[..., size:].reshape(*x0.shape, size)

        def turned(direction: mx.array) -> mx.array:
            return mx.jvp(lambda y: field(y, t), [x], [direction])[1][0]

        changes = mx.vmap(turned, in_axes=-1, out_axes=-1)(tangents)
        return mx.concatenate([field(x, t), changes.reshape(*x0.shape[:-1], -1)], axis=-1)

    start = mx.broadcast_to(mx.eye(size).reshape(-1), (*x0.shape[:-1], size * size))
    end = solver.solve(both, mx.concatenate([x0, start], axis=-1))
    tangents = np.array(end[..., size:], np.float64).reshape(*x0.shape, size)
    return end[..., :size], mx.array(np.linalg.slogdet(tangents)[1], mx.float32)
