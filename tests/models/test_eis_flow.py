"""The flow over circuits: states and their volume, the prior it starts from, known parameters that stay."""

import math

import mlx.core as mx
import numpy as np
import pytest
from scipy.stats import norm

from dataloaders.eis import Spectra
from losses.eis_flow import CircuitFlow
from models.eis_flow import EISFlow
from models.mlp import MLP
from runtime.errors import UsageError
from solvers.likelihood import log_likelihood
from solvers.rk4 import RK4


def flow() -> EISFlow:
    mx.random.seed(0)
    return EISFlow(shape=(12, 4), hidden=16, width=16, slots=4, depth=1, flow_width=16, flow_depth=1)


def moving() -> EISFlow:
    """One whose velocity isn't zero."""
    net = flow()
    net.leave.weight = 0.2 * mx.random.normal(net.leave.weight.shape)
    return net


def batch(count: int = 6, **options) -> dict[str, mx.array]:
    options = {"points": (5, 12), "known": (0.0, 0.0, 1.0)} | options
    found = Spectra(**options).take(np.arange(count), np.random.default_rng(0))
    return {name: mx.array(value) for name, value in found.items()}


def test_states_are_normal_quantiles_of_places_and_know_their_volume():
    places = np.linspace(-0.499, 11.499, 101)
    states = EISFlow.to_state(mx.array(places.astype(np.float32)))
    np.testing.assert_allclose(np.array(states), norm.ppf((places + 0.5) / 12), atol=2e-4)
    np.testing.assert_allclose(np.array(EISFlow.to_places(states)), places, atol=1e-5)
    want = -norm.logpdf(np.array(states)) - math.log(12)  # du/dx = 12 N(x)
    np.testing.assert_allclose(np.array(EISFlow.log_volume(states)), want, rtol=1e-5, atol=1e-5)
    ends = np.array(EISFlow.to_state(mx.array([-0.5, 11.5, -3.0, 40.0])))
    assert np.isfinite(ends).all() and np.abs(ends).max() < 5


def test_at_the_start_of_training_it_is_the_prior():
    """No velocity: the density is uniform over the cells of what is unknown, and samples are uniform."""
    net, data, loss = flow(), batch(8), CircuitFlow()
    found = loss.log_density(net, data, lambda field, x: log_likelihood(field, x, RK4(1)))
    np.testing.assert_allclose(np.array(found), -3 * math.log(12), rtol=1e-5)
    noise = mx.random.normal((1, 4000, 5), key=mx.random.key(0))
    drawn = np.array(loss.draw(net, batch(1, known=(1.0,)), noise, RK4(1)))[0]
    assert drawn.min() > -0.5 and drawn.max() < 11.5
    np.testing.assert_allclose(
        np.quantile(drawn, [0.25, 0.5, 0.75], axis=0), [[2.5] * 5, [5.5] * 5, [8.5] * 5], atol=0.4
    )


def test_known_parameters_stay_and_the_others_move():
    net, data = moving(), batch(8)
    drawn = np.array(CircuitFlow().draw(net, data, mx.random.normal((8, 3, 5), key=mx.random.key(0)), RK4(2)))
    known = np.array(data["known_mask"]) > 0
    np.testing.assert_array_equal(
        drawn.swapaxes(1, 2)[known], np.array(data["target"])[known][:, None].repeat(3, axis=1)
    )
    assert (np.ptp(drawn, axis=1)[~known] > 0).all()
    context = net.encode(data["x"], data["known"], data["known_mask"])
    states, times = mx.random.normal((8, 5), key=mx.random.key(1)), mx.ones((8, 2)) * 0.5
    velocity = np.array(net.velocity(states, times, context, data["known_mask"]))
    assert (velocity[known] == 0).all() and (velocity[~known] != 0).all()


def test_the_velocity_depends_on_spectrum_time_and_known_state():
    net, data = moving(), batch(8)
    for block in net.blocks:
        block.modulate.weight = mx.random.normal(block.modulate.weight.shape)
        block.narrow.weight = mx.random.normal(block.narrow.weight.shape)
    states, times, mask = mx.random.normal((8, 5), key=mx.random.key(1)), mx.ones((8, 2)) * 0.5, data["known_mask"]
    context = net.encode(data["x"], data["known"], mask)
    want = np.array(net.velocity(states, times, context, mask))
    other = net.encode(data["x"] * mx.array([1, 2, 1, 1]), data["known"], mask)
    for changed in ((states, times * 1.2, context), (states + mask, times, context), (states, times, other)):
        assert np.abs(np.array(net.velocity(*changed, mask)) - want).max(axis=1).min() > 1e-4


def test_a_network_without_states_is_refused_and_so_are_no_draws():
    with pytest.raises(UsageError, match="MLP has none"):
        CircuitFlow().check(MLP((2,)))
    with pytest.raises(UsageError, match="at least 1 and residual_weight at least 0, got 0"):
        CircuitFlow(draws=0)
