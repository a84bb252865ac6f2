"""Log-likelihood of flows whose answer is known in closed form."""

import math

import mlx.core as mx
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from runtime.errors import UsageError
from solvers.dopri5 import Dopri5
from solvers.heun import Heun
from solvers.likelihood import carried, log_likelihood
from solvers.rk4 import RK4

MEAN, STD = 3.0, 0.5


def gaussian_field(x, t):
    """The exact velocity of x_t = (1-t) n + t (MEAN + STD n'), whose marginals are normal."""
    variance = (1 - t) ** 2 + (t * STD) ** 2
    return MEAN + (x - MEAN * t) * (t * STD**2 - (1 - t)) / variance


MIX = np.array([[0.3, 0.8, -0.2], [-0.5, 0.1, 0.4], [0.2, -0.6, -0.4]])


def linear_field(x, t):
    return x @ mx.array(MIX.T, dtype=x.dtype)


@pytest.mark.parametrize("solver", [RK4(40), Dopri5(1e-7, 1e-7)], ids=["rk4", "dopri5"])
def test_gaussian_data(solver):
    x = np.random.default_rng(0).normal(MEAN, STD, (16, 2)).astype(np.float32)
    found = log_likelihood(gaussian_field, mx.array(x), solver)
    wanted = multivariate_normal([MEAN, MEAN], STD**2 * np.eye(2)).logpdf(x)
    assert np.abs(np.array(found) - wanted).max() < 1e-3


def test_linear_flow_against_the_matrix_exponential():
    from scipy.linalg import expm

    carry = expm(MIX)
    x = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)
    wanted = multivariate_normal(np.zeros(3), carry @ carry.T).logpdf(x)
    assert np.abs(np.array(log_likelihood(linear_field, mx.array(x), RK4(40))) - wanted).max() < 1e-4


def test_hutchinson_is_unbiased_and_keeps_image_shapes():
    x = mx.array(np.random.default_rng(1).normal(size=(4, 1, 3, 1)).astype(np.float32))

    def field(y, t):
        return linear_field(y.reshape(-1, 3), t).reshape(y.shape)

    exact = np.array(log_likelihood(field, x, RK4(10)))
    draws = [
        np.array(log_likelihood(field, x, RK4(2), "hutchinson", key=mx.random.key(i), probes=16)) for i in range(40)
    ]
    # off-diagonal part of MIX + MIX^T: the variance of one probe is known
    symmetric = (MIX + MIX.T) / 2
    spread = math.sqrt(2 * (np.square(symmetric).sum() - np.square(np.diag(symmetric)).sum()))
    assert np.abs(np.mean(draws, axis=0) - exact).max() < 4 * spread / math.sqrt(640)
    assert abs(np.std(draws - np.mean(draws, axis=0)) / (spread / 4) - 1) < 0.25


def test_hutchinson_with_a_diagonal_jacobian_is_exact():
    x = mx.array([[2.0, 3.5], [3.0, 2.2]])
    exact = log_likelihood(gaussian_field, x, RK4(10))
    estimate = log_likelihood(gaussian_field, x, RK4(10), "hutchinson", key=mx.random.key(0))
    assert mx.abs(exact - estimate).max().item() < 1e-4


def test_hutchinson_needs_a_key():
    with pytest.raises(UsageError, match="key"):
        log_likelihood(gaussian_field, mx.zeros((1, 2)), RK4(2), "hutchinson")


def test_carried_states_have_the_determinant_of_the_solvers_own_map():
    """One Heun step of x' = M x is x + h M x + h^2 M^2 x / 2, another matrix than the flow's exponential."""
    x = mx.random.normal((4, 2, 3), key=mx.random.key(0))
    end, volume = carried(linear_field, x, Heun(2))
    step = np.eye(3) + MIX / 2 + MIX @ MIX / 8
    np.testing.assert_allclose(np.array(end), np.array(x) @ (step @ step).T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.array(volume), np.full((4, 2), 2 * np.log(np.linalg.det(step))), rtol=1e-4)
    assert abs(2 * np.log(np.linalg.det(step)) - np.trace(MIX)) > 1e-4


def test_carried_states_of_a_normal_flow_have_its_density():
    x = mx.random.normal((200, 2), key=mx.random.key(1))
    end, volume = carried(gaussian_field, x, RK4(20))
    found = multivariate_normal([0, 0]).logpdf(np.array(x)) - np.array(volume)
    wanted = multivariate_normal([MEAN, MEAN], STD**2 * np.eye(2)).logpdf(np.array(end))
    np.testing.assert_allclose(found, wanted, atol=1e-3)
