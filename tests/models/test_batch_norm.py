"""Batch norm: its derivatives are those of the formula in NumPy's float64 and of finite differences."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from models import batch_norm
from models.batch_norm import BatchNorm, plain

EPS = mx.array(1e-3)
normalised: Any = batch_norm.normalised


def arrays(seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((6, 2, 2, 3)) * [1, 5, 0.2] + [3, -1, 0]
    return [a.astype(np.float32) for a in (x, rng.standard_normal(3), rng.standard_normal(3))]


def by_formula(x, w, b):
    x, w, b = (np.asarray(a, np.float64) for a in (x, w, b))
    mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return (x - mean) / np.sqrt(var + 1e-3) * w + b, mean, var


def weighted(outputs, weights):
    return sum((a * c).sum() for a, c in zip(outputs, weights, strict=True))


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(1)
    return [rng.standard_normal(s).astype(np.float32) for s in ((6, 2, 2, 3), (3,), (3,))]


def test_values_are_the_formulas():
    for got, want in zip(normalised(*map(mx.array, arrays()), EPS), by_formula(*arrays()), strict=True):
        np.testing.assert_allclose(np.array(got), want, rtol=2e-5, atol=2e-5)


def test_gradient_is_that_of_finite_differences_also_through_the_statistics(weights):
    given = arrays()
    grads = mx.grad(lambda x, w, b: weighted(normalised(x, w, b, EPS), map(mx.array, weights)), (0, 1, 2))(
        *map(mx.array, given)
    )
    rng = np.random.default_rng(2)
    for i, grad in enumerate(grads):
        way = rng.standard_normal(given[i].shape)
        ends = [by_formula(*(a + s * 1e-6 * way if i == j else a for j, a in enumerate(given))) for s in (1, -1)]
        want = (weighted(ends[0], weights) - weighted(ends[1], weights)) / 2e-6
        assert (np.array(grad) * way).sum() == pytest.approx(want, rel=1e-3, abs=1e-3)


def test_jvp_is_that_of_finite_differences():
    given, ways = arrays(), arrays(3)
    found = mx.jvp(lambda x, w, b: normalised(x, w, b, EPS), list(map(mx.array, given)), list(map(mx.array, ways)))[1]
    ends = [by_formula(*(a + s * 1e-6 * d.astype(float) for a, d in zip(given, ways, strict=True))) for s in (1, -1)]
    for got, high, low in zip(found, *ends, strict=True):
        np.testing.assert_allclose(np.array(got), (high - low) / 2e-6, rtol=1e-3, atol=1e-3)


def test_vmap_is_a_batch_norm_of_each():
    x, w, b = map(mx.array, arrays())
    both = mx.stack([x, 2 * x + 1])
    for got, *want in zip(
        mx.vmap(lambda x: normalised(x, w, b, EPS))(both), *(plain(a, w, b, EPS) for a in both), strict=True
    ):
        np.testing.assert_allclose(np.array(got), np.stack([np.array(a) for a in want]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_layer_is_mlxs_own(training):
    rng, mine, theirs = np.random.default_rng(4), BatchNorm(3), nn.BatchNorm(3)
    start = {"weight": mx.array([1.0, 2.0, 0.5]), "bias": mx.array([0.0, 1.0, -1.0])}
    for norm in (mine, theirs):
        norm.update(start)
        norm.train(training)
    for _ in range(3):
        x = mx.array(rng.standard_normal((6, 4, 4, 3)).astype(np.float32) * 3 + 1)
        np.testing.assert_allclose(np.array(mine(x)), np.array(theirs(x)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.array(mine.running_mean), np.array(theirs.running_mean), rtol=1e-4, atol=1e-5)
    assert mine.state.keys() == theirs.state.keys()
