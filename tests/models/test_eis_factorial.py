"""The network without a spectrum: what it sees, its product of marginals, and chance for any weights at all."""

from itertools import combinations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from dataloaders.eis import Spectra
from domains.eis import GRID, default_frequencies, impedance, on_grid
from losses.eis import CircuitLikelihood
from models.eis_factorial import FactorialPredictor
from runtime.op import Context
from runtime.trees import flatten


@pytest.fixture(scope="module")
def predictor():
    mx.random.seed(0)
    return FactorialPredictor(hidden=32)


def batch(count: int = 8) -> dict[str, mx.array]:
    found = Spectra(known=(0, 0, 0, 1.0), prior="grid", points=12).take(np.arange(count), np.random.default_rng(0))
    return {name: mx.array(value) for name, value in found.items()}


def test_it_takes_log10_of_known_parameters_and_the_mask(predictor):
    data = batch()
    mask, cells = np.array(data["known_mask"]), np.array(data["target"]).astype(int)
    values = np.log10(GRID[np.arange(5), cells]) * mask
    h = np.concatenate([values, mask], axis=1)
    for layer in predictor.trunk:
        h = np.maximum(h @ np.array(layer.weight).T + np.array(layer.bias), 0)
    found = predictor(data["x"], data["known"], data["known_mask"])
    np.testing.assert_allclose(np.array(found), h, rtol=1e-4, atol=1e-5)
    other = mx.where(data["known_mask"] > 0, data["known"], 9.0)
    np.testing.assert_array_equal(np.array(predictor(3 * data["x"], other, data["known_mask"])), np.array(found))


def test_the_joint_is_a_product_of_distributions(predictor):
    data = batch(1)
    context = predictor(data["x"], data["known"], data["known_mask"])
    places = mx.array([[3.0, 7.0, 2.0, i, j] for i in range(12) for j in range(12)])
    chosen, density = predictor.log_density(mx.broadcast_to(context, (144, 128)), places)
    table = np.exp(np.array(chosen[:, 3:].sum(axis=1))).reshape(12, 12)
    np.testing.assert_allclose(table, np.outer(table.sum(axis=1), table.sum(axis=0)), rtol=1e-5)
    assert table.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(np.array(density), 0)


def test_any_weights_are_right_in_one_of_144_circuits_of_the_full_factorial(predictor):
    """All completions of what is known, each with its own spectrum: top-k in exactly k of 144."""
    rng = np.random.default_rng(0)
    for asked in combinations(range(5), 2):
        target = np.tile(rng.integers(0, 12, 5), (144, 1))
        target[:, asked] = np.indices((12, 12)).reshape(2, 144).T
        mask = np.ones((144, 5))
        mask[:, asked] = 0
        z = impedance(on_grid(target), default_frequencies(6), "series")
        x = np.stack([np.tile(np.log10(default_frequencies(6)), (144, 1)), z.real, z.imag, np.ones(z.shape)], axis=-1)
        context = predictor(mx.array(x), mx.array(target * mask), mx.array(mask))
        each = mx.array(np.tile(target, (144, 1, 1)))  # for every row its 144 completions
        chosen, _ = predictor.log_density(mx.broadcast_to(context[:, None], (144, 144, 128)), each)
        joint = np.array(chosen)[..., list(asked)].sum(axis=-1)
        ranks = (joint > np.diag(joint)[:, None]).sum(axis=1)
        for k in (1, 5, 10):
            assert (ranks < k).mean() == k / 144
        assert -np.diag(joint).mean() > 2 * np.log(12)  # Gibbs: no distribution has less than the uniform one


def test_the_loss_reaches_every_weight(predictor):
    data, loss = batch(), CircuitLikelihood(refine=False)
    context = Context("train", mx.random.key(0), mx.array(0), mx.array(0))
    grads = nn.value_and_grad(predictor, lambda model: loss(model, data, context)[0])(predictor)[1]
    assert [name for name, g in flatten(grads).items() if not mx.abs(g).max().item()] == []
