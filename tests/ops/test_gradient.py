"""Gradients with respect to inputs, by hand and inside a compiled step."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from ops.losses.regression import MeanSquaredError
from ops.model_op import ModelOp
from ops.tensor.gradient import FGSM, GradientOp, Watch
from ops.tensor.shapes import LambdaOp
from ops.tensor.values import Normalize
from runtime.errors import UsageError
from runtime.op import Context
from tests.training.by_hand import KEY, Adam, assert_same, batches, mlp, weights
from tests.training.by_hand import by_hand as trained_by_hand
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp

ZERO = mx.array(0, mx.int32)


def by_hand(model, x, y):
    return mx.grad(lambda x: (model(x) - y).square().mean())(x)


def network(model):
    return [
        ModelOp(model, "x", "p"),
        MeanSquaredError(("p", "y"), "l"),
        GradientOp("l", "g", "x"),
        FGSM("x", "l", "a", 0.1, clip_low=0.0),
        ModelOp(model, "a", "q"),
        MeanSquaredError(("q", "y"), "m"),
    ]


def test_the_attack_follows_the_sign_of_the_gradient_and_keeps_a_bound_of_zero():
    model, batch = mlp(), batches(1)[0]
    out = Network(network(model)).forward(batch, Context("eval", KEY, ZERO, ZERO))
    wanted = by_hand(model, batch["x"], batch["y"])
    np.testing.assert_allclose(out["g"], wanted, rtol=1e-5)
    moved = np.array(batch["x"]) + 0.1 * np.sign(np.array(wanted))
    np.testing.assert_allclose(out["a"], np.clip(moved, 0, np.array(batch["x"]).max()), rtol=1e-5)


def test_the_compiled_step_gives_the_same_gradient():
    model, batch = mlp(), batches(1)[0]
    wanted = by_hand(model, batch["x"], batch["y"])
    step = TrainStep(Network([*network(model), UpdateOp(model, "m", Adam, learning_rate=1e-2)]))
    step.start(batch)
    np.testing.assert_allclose(step(batch, KEY, fetch=["g"])["g"], wanted, rtol=1e-5, atol=1e-7)


def test_the_second_run_leaves_layer_statistics_as_the_first_made_them():
    model, batch = nn.BatchNorm(2), batches(1)[0]
    Network(network(model)[:3]).forward(batch, Context("train", KEY, ZERO, ZERO))
    np.testing.assert_allclose(model.running_mean, 0.1 * np.array(batch["x"]).mean(0), rtol=1e-5)


def watched(model, watch):
    """The gradient with respect to x after an op has written it, and with respect to a hidden layer's output."""
    return [
        Normalize("x", "x", 0.2, 0.5, 1.0),
        *([Watch("x")] if watch else []),
        ModelOp(model, "x", "h"),
        *([Watch("h")] if watch else []),
        ModelOp(model, "h", "p"),
        MeanSquaredError(("p", "y"), "l"),
        GradientOp(["l", "l"], ["g", "k"], ["x", "h"]),
    ]


def test_watched_keys_have_gradients_though_ops_write_them():
    model, batch = mlp(), batches(1)[0]
    x = (batch["x"] - 0.2) / 0.5
    out = Network(watched(model, True)).forward(batch, Context("eval", KEY, ZERO, ZERO))
    np.testing.assert_allclose(out["k"], by_hand(model, model(x), batch["y"]), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(out["g"], by_hand(lambda x: model(model(x)), x, batch["y"]), rtol=1e-4, atol=1e-7)


def test_a_key_that_an_op_writes_unwatched_is_refused():
    with pytest.raises(UsageError, match="by x, which an op writes; put Watch"):
        Network(watched(mlp(), False)).forward(batches(1)[0], Context("eval", KEY, ZERO, ZERO))


def test_the_loss_is_what_its_key_holds_where_the_gradient_is_taken():
    model, batch = mlp(), batches(1)[0]
    ops = [*network(model)[:2], LambdaOp(lambda loss: 3 * loss, "l", "l"), GradientOp("l", "g", "x")]
    out = Network(ops).forward(batch, Context("eval", KEY, ZERO, ZERO))
    np.testing.assert_allclose(out["g"], 3 * by_hand(model, batch["x"], batch["y"]), rtol=1e-5)


def test_behind_the_updates_the_whole_graph_runs_again():
    model, batch = mlp(), batches(1)[0]
    wanted = by_hand(model, batch["x"], batch["y"])
    first, second = network(model)[:2], [LambdaOp(lambda loss: 3 * loss, "l", "l"), GradientOp("l", "g", "x")]
    step = TrainStep(Network([*first, UpdateOp(model, "l", Adam, learning_rate=1e-2), *second]))
    step.start(batch)
    np.testing.assert_allclose(step(batch, KEY, fetch=["g"])["g"], 3 * wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradients_of_a_models_weights_train_it(compiled):
    model, data = mlp(), batches(4)
    ops = [ModelOp(model, "x", "p"), MeanSquaredError(("p", "y"), "l"), GradientOp("l", "g", model=model)]
    step = TrainStep(
        Network([*ops, UpdateOp(model, optimizer=Adam, learning_rate=1e-2, gradients="g")]), compile=compiled
    )
    step.start(data[0])
    for batch in data:
        step(batch, KEY)
    assert_same(weights(model), trained_by_hand(mlp(), data), rtol=1e-4, atol=1e-6)


def test_the_gradient_of_frozen_weights_is_left_out_and_statistics_move_once():
    model, batch = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm(2)), batches(1)[0]
    model.layers[0].freeze(keys="bias")
    ops = [ModelOp(model, "x", "p"), MeanSquaredError(("p", "y"), "l"), GradientOp(["l"], ["g"], model=model)]
    before = weights(model)
    out: dict = Network(ops).forward(batch, Context("train", KEY, ZERO, ZERO))
    assert set(out["g"]) == {"layers.0.weight", "layers.1.weight", "layers.1.bias"}
    wanted = 2 * (out["p"] - batch["y"]).mean(axis=0) / 2  # of the last bias, by hand
    np.testing.assert_allclose(out["g"]["layers.1.bias"], wanted, rtol=1e-4, atol=1e-6)
    after = weights(model)
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved == {"layers.1.running_mean", "layers.1.running_var"}
    first = np.array(batch["x"]) @ before["layers.0.weight"].T + before["layers.0.bias"]
    np.testing.assert_allclose(after["layers.1.running_mean"], 0.1 * first.mean(0), rtol=1e-4, atol=1e-6)


def test_weights_that_were_differentiated_still_learn_from_what_follows():
    model, data = mlp(), batches(3)
    first = [ModelOp(model, "x", "p"), MeanSquaredError(("p", "y"), "l"), GradientOp("l", "g", model=model)]
    then = [ModelOp(model, "x", "q"), MeanSquaredError(("q", "y"), "m")]
    step = TrainStep(Network([*first, *then, UpdateOp(model, "m", Adam, learning_rate=1e-2)]))
    step.start(data[0])
    for batch in data:
        step(batch, KEY)
    assert_same(weights(model), trained_by_hand(mlp(), data), rtol=1e-4, atol=1e-6)


def test_a_gradient_is_by_inputs_or_by_a_model():
    for options in ({}, {"inputs": "x", "model": mlp()}):
        with pytest.raises(UsageError, match="either inputs or a model"):
            GradientOp("l", "g", **options)
