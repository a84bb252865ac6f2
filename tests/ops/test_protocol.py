"""TensorOp, ModelOp and LossOp: how inputs are picked and outputs named, where gradients go, what a mask leaves out."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from ops.loss_op import LossOp
from ops.model_op import ModelOp
from runtime.errors import UsageError
from runtime.op import Context, TensorOp
from tests.training.by_hand import KEY, mlp, weights
from training.network import Network

ZERO = mx.array(0, mx.int32)


def context(mode="train", **options):
    return Context(mode, KEY, ZERO, ZERO, **options)


class Same(TensorOp):
    def forward(self, data, state):
        self.got = data
        return data


class Squared(LossOp):
    def per_sample(self, data, state):
        prediction, truth = data
        return (prediction - truth).square().mean(axis=-1)


def test_one_name_is_an_array_and_a_list_is_a_list():
    a, b = mx.array([1.0]), mx.array([2.0])
    data = {"a": a, "b": b}
    assert Same("a", "y")(data, context())["y"] is a
    listed = Same(["a"], ["y"])
    assert listed(data, context())["y"] is a and isinstance(listed.got, list)
    both = Same(["a", "b"], ["p", "q"])(data, context())
    assert both["p"] is a and both["q"] is b
    assert Same("a", None)(data, context()) == {}


@pytest.mark.parametrize("outputs", [["p"], ["p", "q", "r"], "p"])
def test_a_wrong_number_of_outputs_names_the_op(outputs):
    with pytest.raises(UsageError, match=r"Same returned 2 values; needed: \d for its outputs p"):
        Same(["a", "b"], outputs)({"a": KEY, "b": KEY}, context())


def test_ops_obey_mode_and_data_set():
    ops = [Same("x", "all"), Same("x", "not_infer", mode="!infer"), Same("x", "first", ds_id="one"),
           Same("x", "others", ds_id="!one"), Same("x", "two_modes", mode=["eval", "test"])]  # fmt: skip

    def keys(mode, ds_id=""):
        return set(Network(ops).forward({"x": KEY}, context(mode, ds_id=ds_id))) - {"x", "all"}

    assert keys("train") == {"not_infer", "others"}
    assert keys("infer", "one") == {"first"}
    assert keys("test", "two") == {"not_infer", "others", "two_modes"}


def test_a_key_given_as_none_is_taken_out():
    class Drop(TensorOp):
        def __call__(self, data, ctx):
            return dict.fromkeys(self.outputs)

    assert set(Network([Drop((), ["x"])]).forward({"x": KEY, "y": KEY}, context())) == {"y"}


class Summing(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = mx.array(2.0)

    def __call__(self, a, b, key=None):
        self.key = key
        return self.weight * (a + 10 * b), a


def test_a_model_gets_its_inputs_one_by_one_and_the_key():
    model = Summing()
    out = ModelOp(model, ["a", "b"], ["y", "z"])({"a": mx.array(1.0), "b": mx.array(2.0)}, context())
    assert float(out["y"]) == 42 and float(out["z"]) == 1 and model.key is not None


@pytest.mark.parametrize("trainable", [True, False])
def test_trainable_false_stops_gradients_into_the_weights_but_not_to_the_inputs(trainable):
    model = mlp()
    op = ModelOp(model, "x", "y", trainable=trainable)
    x = mx.ones((3, 2))

    def loss(leaves, x):
        model.update(leaves)
        return op({"x": x}, context())["y"].square().sum()

    before = weights(model)
    leaves = model.trainable_parameters()
    by_weight, by_input = mx.grad(loss, argnums=(0, 1))(leaves, x)
    model.update(leaves)
    assert bool(mx.any(by_weight["layers"][0]["weight"] != 0)) == trainable
    assert bool(mx.any(by_input != 0))
    assert all(np.array_equal(before[path], value) for path, value in weights(model).items())


def test_layer_statistics_move_where_weights_may_not():
    model = nn.BatchNorm(2)
    model.train(True)
    ModelOp(model, "x", "y", trainable=False)({"x": mx.ones((4, 2))}, context())
    np.testing.assert_allclose(np.array(model.running_mean), 0.1)


def test_a_loss_is_the_mean_of_the_rows_that_count():
    data = {"p": mx.array([[1.0], [2.0], [9.0]]), "t": mx.zeros((3, 1))}
    mask = mx.array([1.0, 1.0, 0.0])
    assert float(Squared(("p", "t"), "l")(data, context())["l"]) == pytest.approx(86 / 3)
    assert float(Squared(("p", "t"), ["l"])(data | {"mask": mask}, context("eval"))["l"]) == 2.5
    rows = Squared(("p", "t"), "l", average_loss=False)(data | {"mask": mask}, context())["l"]
    assert rows.tolist() == [1, 4, 81]
    assert float(Squared(("p", "t"), "l")(data | {"mask": 0 * mask}, context("eval"))["l"]) == 0
    assert Network([Squared(("p", "t"), "l")]).get_loss_keys() == ("l",)
