"""Circuits by flow matching where the posterior is normal: density and samples of the exact field and a trained one.

States y ~ N(0, I) are seen as MIX y plus noise, some of them known: the posterior of the others is normal, and the
"spectrum" is the observation itself.
"""

from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from losses.eis_flow import CircuitFlow
from models.eis_flow import EISFlow
from runtime.op import Context
from runtime.trees import flatten
from solvers.likelihood import log_likelihood
from solvers.rk4 import RK4

MIX, NOISE = np.array([[1, 0.5, 0, 0, 0], [0, 1, 0, 0, 0.8], [0.3, 0, 0, 1, 0]]), 0.4
normal: Any = multivariate_normal  # scipy's stub takes a number alone for the covariance
SOLVER = RK4(12, grid="cosine")


def context(key: int = 0) -> Context:
    return Context("train", mx.random.key(key), mx.array(0), mx.array(0))


def observed(count: int, seed: int, mask=None) -> dict[str, mx.array]:
    """Rows as losses.eis_flow reads them; mask: what is known, else nothing in half of the rows, 40% in the others."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((count, 5))
    seen = y @ MIX.T + NOISE * rng.standard_normal((count, 3))
    places = np.array(EISFlow.to_places(mx.array(y.astype(np.float32))))
    drawn = (rng.random((count, 5)) < 0.4) & (rng.random((count, 1)) < 0.5)
    known = drawn if mask is None else np.tile(np.array(mask, bool), (count, 1))
    rows = {"x": seen[:, None], "target": places, "known": places * known, "known_mask": known}
    return {name: mx.array(value.astype(np.float32)) for name, value in rows.items()}


def posterior(row: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and covariance of the unknown states, and which they are, by the rules of normal variables."""
    unknown = row["known_mask"] == 0
    states = np.array(EISFlow.to_state(mx.array(row["target"])), np.float64)
    rest = row["x"][0] - MIX[:, ~unknown] @ states[~unknown]
    matrix = MIX[:, unknown]
    covariance = np.linalg.inv(np.eye(unknown.sum()) + matrix.T @ matrix / NOISE**2)
    return covariance @ matrix.T @ rest / NOISE**2, covariance, unknown


def rows_of(batch) -> list[dict[str, np.ndarray]]:
    arrays = {name: np.array(value) for name, value in batch.items()}
    return [{name: value[i] for name, value in arrays.items()} for i in range(len(arrays["x"]))]


def exact_log_density(batch) -> np.ndarray:
    """ln of the posterior's density per cell of the grid: that of the states over d place / d state = 12 N(state)."""
    found = []
    for row in rows_of(batch):
        mean, covariance, unknown = posterior(row)
        states = np.array(EISFlow.to_state(mx.array(row["target"])), np.float64)[unknown]
        inside = normal(mean, covariance).logpdf(states) if unknown.any() else 0.0
        found.append(inside - (norm.logpdf(states) + np.log(12)).sum())
    return np.array(found)


class Observation(nn.Module):
    """In the encoder's place: what was seen, what is known and which that is."""

    def __call__(self, x, known, known_mask):
        return mx.concatenate([x[:, 0], (known - 5.5) / 3 * known_mask, known_mask], axis=1)


class Exact(EISFlow):
    """The velocity E[x1 - x0 | x_t] of normal posteriors, given by `solve_for`, instead of a network's."""

    def solve_for(self, batch):
        self.mean, self.root, self.spread = (np.zeros((len(batch["x"]), *size)) for size in ((5,), (5, 5), (5,)))
        self.spread += 1  # of what is known, so that nothing divides by 0 at t=1
        for i, row in enumerate(rows_of(batch)):
            mean, covariance, unknown = posterior(row)
            where = np.flatnonzero(unknown)
            values, vectors = np.linalg.eigh(covariance)
            self.mean[i, where] = mean
            self.spread[i, where], self.root[i][np.ix_(where, where)] = values, vectors
        return self

    def velocity(self, x, times, context, known_mask, key=None):
        arrays = [mx.array(a.astype(np.float32)) for a in (self.mean, self.root, self.spread)] + [times[:, :1]]
        if x.ndim == 3:  # many states of each row
            *arrays, known_mask = (a[:, None] for a in (*arrays, known_mask))
        mean, root, spread, t = arrays
        gain = (t * spread - (1 - t)) / ((1 - t) ** 2 + t**2 * spread)
        along = ((x - t * mean)[..., None, :] @ root)[..., 0, :]
        return (mean + (root @ (gain * along)[..., None])[..., 0]) * (1 - known_mask)


def small() -> EISFlow:
    mx.random.seed(0)
    net = EISFlow(hidden=13, width=8, slots=2, depth=1, flow_width=48, flow_depth=1)
    net["encoder"] = Observation()
    return net


def density(model, batch) -> np.ndarray:
    return np.array(CircuitFlow().log_density(model, batch, partial(log_likelihood, solver=SOLVER)))


def test_the_exact_field_has_the_posteriors_density_and_samples():
    batch = observed(40, seed=1)
    model = Exact(hidden=8, width=8, slots=2, depth=1, flow_width=8, flow_depth=1).solve_for(batch)
    model["encoder"] = Observation()
    np.testing.assert_allclose(density(model, batch), exact_log_density(batch), atol=3e-3)
    two, count = observed(2, 2, (0, 0, 1, 0, 1)), 3000
    model.solve_for(two)
    drawn = CircuitFlow().draw(model, two, mx.random.normal((2, count, 5), key=mx.random.key(0)), SOLVER)
    for states, row in zip(np.array(EISFlow.to_state(drawn)), rows_of(two), strict=True):
        mean, covariance, unknown = posterior(row)
        np.testing.assert_allclose(states[:, unknown].mean(axis=0), mean, atol=0.05)
        np.testing.assert_allclose(np.cov(states[:, unknown].T), covariance, atol=0.05)


@pytest.fixture(scope="module")
def trained() -> EISFlow:
    model, loss, optimizer = small(), CircuitFlow(draws=2, residual_weight=0), optim.Adam(optim.cosine_decay(5e-3, 600))
    state = [model.state, optimizer.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step(batch, key):
        own = Context("train", key, mx.array(0), mx.array(0))
        _, gradients = nn.value_and_grad(model, lambda net: loss(net, batch, own)[0])(model)
        optimizer.update(model, gradients)

    for i in range(600):
        step(observed(256, seed=100 + i), mx.random.key(i))
        mx.eval(state)
    return model


def test_a_trained_flow_has_nearly_the_posteriors_likelihood(trained):
    batch = observed(200, seed=1)
    gap = (exact_log_density(batch) - density(trained, batch)).mean()
    assert -0.02 < gap < 0.12, gap


@pytest.mark.parametrize("mask", [(0, 0, 0, 0, 0), (0, 1, 0, 0, 1)])
def test_a_trained_flow_draws_from_the_posterior(trained, mask):
    one = observed(1, 4, mask)
    mean, covariance, unknown = posterior(rows_of(one)[0])
    noise = mx.random.normal((1, 2000, 5), key=mx.random.key(0))
    drawn = np.array(EISFlow.to_state(CircuitFlow().draw(trained, one, noise, SOLVER)))[0]
    np.testing.assert_allclose(drawn[:, unknown].mean(axis=0), mean, atol=0.2)
    np.testing.assert_allclose(np.cov(drawn[:, unknown].T), covariance, atol=0.25)
    known = np.array(EISFlow.to_state(one["known"]))[:, ~unknown]
    np.testing.assert_array_equal(drawn[:, ~unknown], known.repeat(2000, axis=0))


def test_known_parameters_are_still_and_padding_counts_nothing():
    seen = {}

    class Recorder:
        to_state = staticmethod(EISFlow.to_state)

        def encode(self, x, known, known_mask):
            return known

        def velocity(self, x, times, context, known_mask, key=None):
            seen.update(x=x, times=times, context=context, known_mask=known_mask)
            return mx.zeros_like(x)

    batch = observed(6, seed=0, mask=(1, 0, 0, 1, 0))
    full, extra = CircuitFlow(draws=3, residual_weight=0)(Recorder(), batch, context())
    known, states = np.array(seen["known_mask"]) > 0, np.array(EISFlow.to_state(batch["target"])).repeat(3, axis=0)
    np.testing.assert_allclose(np.array(seen["x"])[known], states[known], atol=1e-5)
    assert (np.abs(np.array(seen["x"]) - states)[~known] > 1e-5).all()
    assert len(np.unique(np.array(seen["times"])[:, 0])) == 18
    np.testing.assert_array_equal(np.array(seen["context"]), np.array(batch["known"]).repeat(3, axis=0))
    rows = np.array(extra["velocity_mse"])
    assert rows.shape == (6,) and full.item() == pytest.approx(rows.mean(), rel=1e-5)
    part, extra = CircuitFlow(draws=3, residual_weight=0)(
        Recorder(), batch | {"mask": mx.array([1.0, 1, 0, 0, 0, 0])}, context()
    )
    assert part.item() == pytest.approx(np.array(extra["velocity_mse"])[:2].mean(), rel=1e-5)


def test_the_residuals_error_is_added_by_its_weight_but_in_rows_without_a_spectrum():
    mx.random.seed(0)
    model = EISFlow(shape=(12, 4), hidden=16, width=16, slots=4, depth=1, flow_width=16, flow_depth=1)
    batch = observed(6, seed=0)
    points = mx.random.normal((6, 12, 4))
    points[..., 3] = mx.array([1.0, 1, 1, 1, 1, 0])[:, None]
    batch |= {"x": points * points[..., 3:], "candidate": batch["target"], "residual": mx.ones(6)}
    said = model.log_residual(model.encode(batch["x"], batch["known"], batch["known_mask"]), batch["candidate"])
    want = np.square(np.array(said) - 1) * [1, 1, 1, 1, 1, 0]
    without, _ = CircuitFlow(residual_weight=0)(model, batch, context())
    for weight in (0.5, 2.0):
        loss, extra = CircuitFlow(residual_weight=weight)(model, batch, context())
        np.testing.assert_allclose(np.array(extra["residual_mse"]), want, rtol=1e-4)
        assert (loss - without).item() == pytest.approx(weight * want.mean(), rel=1e-4)


def test_gradients_reach_every_weight_once_it_moves():
    mx.random.seed(0)
    model = EISFlow(shape=(12, 4), hidden=16, width=16, slots=4, depth=1, flow_width=16, flow_depth=2)
    model.apply(lambda a: a + 0.1 * mx.random.normal(a.shape))
    batch = observed(8, seed=0)
    batch["x"] = mx.random.normal((8, 12, 4))
    batch["x"][..., 3] = 1
    batch |= {"candidate": mx.random.uniform(0, 11, (8, 5)), "residual": mx.random.normal((8,))}
    gradients = nn.value_and_grad(model, lambda net: CircuitFlow()(net, batch, context())[0])(model)[1]
    assert [name for name, g in flatten(gradients).items() if not mx.abs(g).max().item()] == []
