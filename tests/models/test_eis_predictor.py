"""The predictor: a density that integrates to one, no use of what it must not see, gradients for all of it."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from dataloaders.eis import Spectra
from losses.eis import CircuitLikelihood
from models.eis_predictor import EISPredictor
from models.mlp import MLP
from models.transformer import NONLINEARITIES
from runtime.errors import UsageError
from runtime.host import twin
from runtime.op import Context
from runtime.trees import flatten
from training.network import Mixed


@pytest.fixture(scope="module")
def predictor():
    mx.random.seed(0)
    return EISPredictor(shape=(12, 4), hidden=32, width=16, slots=4, depth=1, mixture=3)


def batch(count: int = 6, **options) -> dict[str, mx.array]:
    options = {"points": (5, 12), "known": (0.5, 0.5)} | options
    found = Spectra(**options).take(np.arange(count), np.random.default_rng(0))
    return {name: mx.array(value) for name, value in found.items()}


def encoded(predictor, data, **changes) -> np.ndarray:
    data = data | changes
    return np.array(predictor(data["x"], data["known"], data["known_mask"]))


def test_cells_sum_to_one_and_see_only_the_places_before(predictor):
    context = mx.array(encoded(predictor, batch(1)))
    pairs = mx.array([[3.0, 7.0, 2.0, i, j] for i in range(12) for j in range(12)])
    chosen, density = predictor.log_density(mx.broadcast_to(context, (144, 32)), pairs, within=False)
    assert mx.exp(chosen[:, 3:].sum(axis=1)).sum().item() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(np.array(density), 0)
    np.testing.assert_allclose(np.array(chosen[:, :3]), np.tile(np.array(chosen[:1, :3]), (144, 1)), atol=1e-6)
    assert np.ptp(np.array(chosen)[::12, 4]) > 0  # the last depends on the fourth: no product of marginals


def test_order_of_points_and_what_stands_where_there_are_none_are_not_seen(predictor):
    data = batch()
    want = encoded(predictor, data)
    order = np.random.default_rng(1).permutation(12)
    np.testing.assert_allclose(encoded(predictor, data, x=data["x"][:, mx.array(order)]), want, atol=2e-5)
    garbage = mx.where(data["x"][..., 3:] > 0, data["x"], mx.array([5.0, 1e3, -1e3, 0.0]))
    np.testing.assert_allclose(encoded(predictor, data, x=garbage), want, atol=2e-5)
    longer = mx.concatenate([data["x"], mx.zeros((6, 9, 4))], axis=1)
    np.testing.assert_allclose(encoded(predictor, data, x=longer), want, atol=2e-5)
    other = mx.where(data["known_mask"] > 0, data["known"], 9.0)
    np.testing.assert_allclose(encoded(predictor, data, known=other), want, atol=2e-5)
    assert np.abs(encoded(predictor, data, x=data["x"] * mx.array([1, 1.2, 1, 1])) - want).max() > 1e-4


@pytest.mark.parametrize("width", [-1e3, 90.0, 1e4])
def test_components_as_narrow_or_wide_as_training_makes_them_have_a_density(width):
    model = EISPredictor(shape=(12, 4), hidden=16, width=8, slots=2, depth=1, mixture=3)
    for layer in model.place:
        layer.bias = mx.array([0.0] * 6 + [width] * 3)
    data = batch()
    context = model(data["x"], data["known"], data["known_mask"])

    def density(context):
        return model.log_density(context, data["target"])[1]

    assert np.isfinite(np.array(density(context))).all()
    assert np.isfinite(np.array(mx.grad(lambda c: density(c).sum())(context))).all()
    if width > 0:  # flat: one over the cell's width of one
        np.testing.assert_allclose(np.array(density(context)), 0, atol=1e-4)


def test_draws_say_their_own_density_and_hold_what_is_known(predictor):
    data = batch(3, known=(0.0, 0.0, 1.0))
    context = mx.array(encoded(predictor, data))
    for within in (True, False):
        places, log_q = predictor.sample(context, data["known"], data["known_mask"], 400, mx.random.key(1), within)
        mask = np.array(data["known_mask"])[:, None]
        given = np.broadcast_to(np.array(data["known"])[:, None], places.shape)
        np.testing.assert_array_equal(np.where(mask, places, 0), np.where(mask, given, 0))
        chosen, density = predictor.log_density(mx.broadcast_to(context[:, None], (3, 400, 32)), places, within)
        want = ((np.array(chosen) + np.array(density)) * (1 - mask)).sum(axis=-1)
        np.testing.assert_allclose(np.array(log_q), want, atol=2e-4)
        drawn = np.array(places)[np.broadcast_to(mask == 0, places.shape)]
        assert np.abs(drawn - 5.5).max() <= 6 and (within or (drawn == np.rint(drawn)).all())


def test_what_every_row_knows_is_not_asked_of_the_network(predictor, monkeypatch):
    asked, own = [], EISPredictor.cells
    monkeypatch.setattr(EISPredictor, "cells", lambda self, *given: asked.append(given[2]) or own(self, *given))
    context, known = mx.array(encoded(predictor, batch(2))), mx.array([[1.5, 2.0, 3.0, 4.0, 5.0]] * 2)
    mask = mx.array([[1.0, 0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0]])
    places, log_q = predictor.sample(context, known, mask, 50, mx.random.key(1))
    assert asked == [1, 3, 4]
    np.testing.assert_array_equal(np.array(places)[..., [0, 2]], np.tile([1.5, 3.0], (2, 50, 1)))
    chosen, density = predictor.log_density(mx.broadcast_to(context[:, None], (2, 50, 32)), places)
    want = ((np.array(chosen) + np.array(density)) * (1 - np.array(mask))[:, None]).sum(axis=-1)
    np.testing.assert_allclose(np.array(log_q), want, atol=2e-4)


def test_draws_where_every_row_knows_a_parameter_are_those_of_rows_that_differ(predictor):
    """A column that is known throughout is not computed."""
    data = batch(3, known=(1.0,))
    known, mask = mx.broadcast_to(mx.array([3.2, 7.9, 0.4, 5.0, 11.3]), (3, 5)), mx.zeros((3, 5))
    mask[:, mx.array([0, 2])] = 1
    context = mx.array(encoded(predictor, data, known=known, known_mask=mask))
    places, log_q = predictor.sample(context[:2], known[:2], mask[:2], 50, mx.random.key(1))
    chosen, density = predictor.log_density(mx.broadcast_to(context[:2, None], (2, 50, 32)), places)
    np.testing.assert_allclose(np.array(log_q), np.array((chosen + density)[..., mx.array([1, 3, 4])].sum(axis=-1)),
                               atol=2e-4)  # fmt: skip
    np.testing.assert_array_equal(np.array(places)[..., [0, 2]],
                                  np.broadcast_to(np.array([3.2, 0.4], np.float32), (2, 50, 2)))  # fmt: skip
    everything, nothing = predictor.sample(context, known, mx.ones((3, 5)), 4, mx.random.key(0))
    np.testing.assert_array_equal(np.array(everything), np.broadcast_to(np.array(known)[:, None], (3, 4, 5)))
    np.testing.assert_array_equal(np.array(nothing), 0)


def test_draws_come_as_often_as_their_density_says(predictor):
    context = mx.broadcast_to(mx.array(encoded(predictor, batch(1))), (1, 32))
    nothing = mx.zeros((1, 5))
    places, _ = predictor.sample(context, nothing, nothing, 40_000, mx.random.key(0))
    logits, h = predictor.cells(context, nothing, 0)
    expected = np.array(mx.softmax(logits))[0]
    found = np.array(places[0, :, 0])
    share = np.bincount(np.rint(found).astype(int), minlength=12) / len(found)
    np.testing.assert_allclose(share, expected, atol=0.012)  # 5 standard errors


def test_without_a_spectrum_only_what_is_known_counts(predictor):
    data = batch()
    blank = encoded(predictor, data, x=mx.zeros((6, 12, 4)), known_mask=mx.zeros((6, 5)))
    np.testing.assert_allclose(blank, np.tile(blank[:1], (6, 1)), atol=1e-6)


def test_the_loss_counts_unknown_parameters_and_its_gradient_reaches_every_weight(predictor):
    data, loss = batch(8, known=(0.0, 0.0, 1.0)), CircuitLikelihood()
    context = Context("train", mx.random.key(0), mx.array(0), mx.array(0))
    total, extra = loss(predictor, data, context)
    h = predictor(data["x"], data["known"], data["known_mask"])
    chosen, density = (np.array(a) for a in predictor.log_density(h, data["target"]))
    unknown = 1 - np.array(data["known_mask"])
    nll = -((chosen + density) * unknown).sum(axis=1)
    np.testing.assert_allclose(np.array(extra["nll"]), nll, rtol=1e-5)
    error = np.square(np.array(predictor.log_residual(h, data["candidate"])) - np.array(data["residual"]))
    assert total.item() == pytest.approx((nll + 0.5 * error).mean(), rel=1e-5)
    grads = nn.value_and_grad(predictor, lambda model: loss(model, data, context)[0])(predictor)[1]
    assert [name for name, g in flatten(grads).items() if not mx.abs(g).max().item()] == []
    coarse, parts = CircuitLikelihood(refine=False)(predictor, data, context)
    np.testing.assert_array_equal(np.array(parts["nll"]), np.array(parts["cell_nll"]))
    assert coarse.item() != total.item()


def test_a_lower_precision_does_not_round_the_spectrum(predictor):
    data, context = batch(8), Context("train", mx.random.key(0), mx.array(0), mx.array(0))
    want = CircuitLikelihood()(predictor, data, context)[0].item()
    assert CircuitLikelihood()(Mixed(predictor, mx.bfloat16), data, context)[0].item() == want


def test_the_nonlinearity_is_that_of_encoder_and_heads(predictor):
    mx.random.seed(0)
    other = EISPredictor(shape=(12, 4), hidden=32, width=16, slots=4, depth=1, mixture=3, nonlinearity="relu")
    other.update(predictor.parameters())
    data = batch()
    assert encoded(other, data).min() == 0 > encoded(predictor, data).min()
    context, places = mx.array(encoded(predictor, data)), data["target"]
    for part in ("log_density", "log_residual"):  # on one encoding
        found = [getattr(model, part)(context, places) for model in (predictor, other)]
        found = [np.array(one[0] if isinstance(one, tuple) else one) for one in found]
        assert np.abs(found[0] - found[1]).max() > 1e-4


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_on_the_host_everything_is_the_same_but_for_rounding(predictor, nonlinearity):
    model = EISPredictor(shape=(12, 4), hidden=32, width=16, slots=4, depth=1, mixture=3, nonlinearity=nonlinearity)
    model.update(predictor.parameters())
    host, data, key = twin(model), batch(), mx.random.key(2)
    data["x"][0] = 0  # no spectrum
    mask, places = data["known_mask"], data["target"][:, None]
    context = model(data["x"], data["known"], mask)

    def compare(name, *given):
        want = getattr(model, name)(*given)
        found = getattr(host, name)(*(np.array(one) if isinstance(one, mx.array) and one is not key else one
                                      for one in given))  # fmt: skip
        assert type(found) is (tuple if isinstance(want, tuple) else np.ndarray)
        pairs = list(zip(found, want, strict=True)) if isinstance(want, tuple) else [(found, want)]
        assert all(one.dtype == np.float32 for one, _ in pairs)
        return want, [np.abs(one - np.array(other)) for one, other in pairs]

    def same(name, *given):
        want, off = compare(name, *given)
        assert max(one.max() for one in off) < 2e-5, name
        return want

    same("encode", data["x"], data["known"], mask)
    for i in range(5):
        _, h = same("cells", context[:, None], places, i)
        same("inside", h, mx.clip(mx.round(places[..., i]), 0, 11).astype(mx.int32), i)
    same("log_residual", context[:, None], places)
    for within in (True, False):
        _, (off, density) = compare("sample", context, data["known"], mask, 20, key, within)
        near = off.max(axis=-1) < 1e-4
        assert near.mean() > 0.98 and density[near].max() < 1e-4  # rounding may put one of 120 into another cell


def test_a_network_without_densities_is_refused():
    with pytest.raises(UsageError, match="MLP has none"):
        CircuitLikelihood().check(MLP((2,)))
