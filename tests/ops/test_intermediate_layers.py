"""Outputs of layers inside of a model, in its own forward pass: against calling the layers by hand."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from models.dit import DiT
from ops.model_op import ModelOp
from runtime.errors import UsageError
from runtime.slots import snapshot
from tests.training.by_hand import KEY, Apply, assert_same, batches, primitives_of
from training.forward import ForwardStep, judged_arrays
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp


class Net(nn.Module):
    """Two layers in a list and a Sequential, a head, and a layer that is never called."""

    def __init__(self):
        super().__init__()
        mx.random.seed(0)
        self.body = [nn.Linear(2, 8), nn.Sequential(nn.Tanh(), nn.Linear(8, 4))]
        self.head, self.unused = nn.Linear(4, 2), nn.Linear(1, 1)

    def __call__(self, x):
        for layer in self.body:
            x = layer(x)
        return self.head(x)


def by_hand(model, x):
    first = model.body[0](x)
    second = model.body[1].layers[1](mx.tanh(first))
    return model.head(second), first, second


def loss_of(out, first, second, y):
    return (out - y).square().mean() + 0.1 * first.square().mean() + 0.2 * mx.abs(second).mean()


def network(model, **options):
    op = ModelOp(model, "x", ["out", "first", "second"], intermediate_layers=["body.0", "body.1"], **options)
    keys = ("out", "first", "second", "y")
    loss = Apply("loss", lambda data, ctx: {"loss": loss_of(*(data[key] for key in keys))})
    return Network([op, loss, UpdateOp(model, "loss", optim.SGD, 0.1)])


@pytest.mark.parametrize("compile", [True, False])
def test_values_and_gradients_are_those_of_layers_called_by_hand(compile):
    model, twin, (batch,) = Net(), Net(), batches(1)
    step = TrainStep(network(model), compile=compile)
    for _ in range(2):
        expected = by_hand(twin, batch["x"])
        out = step(batch, KEY, ("out", "first", "second"))
        for name, value in zip(("out", "first", "second"), expected, strict=True):
            np.testing.assert_allclose(np.array(out[name]), np.array(value), rtol=1e-5, atol=1e-6)

        def loss(weights):
            twin.update(weights)
            return loss_of(*by_hand(twin, batch["x"]), batch["y"])

        held = twin.trainable_parameters()
        gradients = mx.grad(loss)(held)
        twin.update(optim.SGD(0.1).apply_gradients(gradients, held))
        assert_same(snapshot(model), snapshot(twin), rtol=1e-5, atol=1e-6)


def test_the_forward_pass_is_the_only_one():
    def products(op, keys):
        loss = Apply(
            "loss", lambda data, ctx: {"loss": sum((data[key].square().mean() for key in keys), mx.array(0.0))}
        )
        step = TrainStep(Network([op, loss, UpdateOp(op.model, "loss", optim.SGD, 0.1)]))
        names = primitives_of(step, batches(1)[0], ())
        return sum(name.startswith(("Matmul", "AddMM")) for name in names)

    alone = products(ModelOp(Net(), "x", "out"), ["out"])
    assert products(ModelOp(Net(), "x", ["out", "a"], intermediate_layers="body.1"), ["out", "a"]) == alone == 3 + 3 + 2


def test_evaluation_gives_them_too_and_classes_are_as_before():
    before, model, (batch,) = nn.Linear.__call__, Net(), batches(1)
    own = network(model)
    out = ForwardStep(own, "eval")(judged_arrays(own), batch, KEY, ("first",))
    np.testing.assert_allclose(np.array(out["first"]), np.array(model.body[0](batch["x"])), rtol=1e-6)
    assert nn.Linear.__call__ is before


def test_an_op_that_does_not_train_lets_no_gradient_into_the_layers():
    model, (batch,) = Net(), batches(1)
    held = {path: np.array(leaf) for path, leaf in snapshot(model).items()}
    TrainStep(network(model, trainable=False))(batch, KEY)
    assert_same(snapshot(model), held)


def test_lower_precision_ends_with_the_layer():
    model, (batch,) = Net(), batches(1)
    out = TrainStep(network(model), precision="bf16")(batch, KEY, ("out", "first"))
    assert out["first"].dtype == out["out"].dtype == mx.float32
    exact = np.array(by_hand(Net(), batch["x"])[1])
    assert 0 < np.abs(np.array(out["first"]) - exact).max() < 0.05


def test_a_layer_that_is_called_twice_gives_its_last_output():
    layer = nn.Linear(2, 2)
    model, (batch,) = nn.Sequential(layer, nn.Tanh(), layer), batches(1)
    op = ModelOp(model, "x", ["out", "again"], intermediate_layers=["layers.2"])
    out = ForwardStep(Network(op), "infer")(snapshot({"model": model}), batch, KEY, ("out", "again"))
    np.testing.assert_array_equal(np.array(out["out"]), np.array(out["again"]))


@pytest.mark.parametrize(
    ("layers", "outputs", "said"),
    [
        ("body.O", ["out", "a"], r"Net has no layer 'body.O'; nearest: body"),
        ("", ["out", "a"], "Net has no layer ''"),
        ("unused", ["out", "a"], "does not call its layer 'unused'"),
        ("body.0", ["out"], "returned 2 values; needed: 1"),
    ],
)
def test_mistakes_are_told(layers, outputs, said):
    model = Net()
    with pytest.raises(UsageError, match=said):
        op = ModelOp(model, "x", outputs, intermediate_layers=layers)
        ForwardStep(Network(op), "eval")(snapshot({"model": model}), batches(1)[0], KEY, outputs)


def test_layers_of_a_checkpointed_model_and_those_that_give_several_arrays_are_refused():
    with pytest.raises(UsageError, match="checkpoint=false"):
        ModelOp(DiT((4, 4, 1), hidden=8, depth=1, heads=1, checkpoint=True), "x", "y", intermediate_layers="blocks.0")

    class Pair(nn.Module):
        def __call__(self, x):
            return x, x

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def __call__(self, x):
            return self.pair(x)[0]

    op = ModelOp(Holder(), "x", ["y", "pair"], intermediate_layers="pair")
    with pytest.raises(UsageError, match="'pair' gives a tuple; needed: one array"):
        ForwardStep(Network(op), "eval")({}, batches(1)[0], KEY, ("y",))
