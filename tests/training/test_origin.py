"""Where numbers stop being finite: faults planted in every kind of place, and each found."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from losses.meanflow import MeanFlow
from ops.model_op import ModelOp
from runtime.op import ObjectiveOp, TensorOp
from runtime.slots import snapshot
from training.network import Network
from training.origin import origins
from training.step import TrainStep
from training.update import UpdateOp

KEY = mx.array([3, 4], mx.uint32)
X = mx.array(np.random.default_rng(0).normal(size=(5, 4)), mx.float32)


class Fault(nn.Module):
    """Does something to (B, D)."""

    def __init__(self, what):
        super().__init__()
        self._what, self.inner = what, nn.Identity()

    def __call__(self, x):
        return self.inner(self._what(x))


class Deep(nn.Module):
    """Linear layers in lists and Sequentials, with faults at given places."""

    def __init__(self, between=lambda x: x, inside=lambda x: x):
        super().__init__()
        self._between = between
        self.rows = [nn.Sequential(nn.Linear(4, 4), nn.Tanh()), [nn.Sequential(nn.Linear(4, 4), Fault(inside))]]
        self.last = nn.Linear(4, 1)

    def __call__(self, x):
        return self.last(self.rows[1][0](self._between(self.rows[0](x))))


class Loss(TensorOp):
    def __init__(self, what=lambda y: mx.square(y)):
        super().__init__("y", "loss")
        self.what, self.losses = what, ("loss",)

    def forward(self, data, state):
        return self.what(data).mean()


class Infinite(TensorOp):
    def forward(self, data, state):
        return data + float("inf")


def step_of(model=None, loss=None, before=(), **options):
    mx.random.seed(0)
    model = model or Deep()
    ops = [*before, ModelOp(model, "x", "y"), loss or Loss(), UpdateOp(model, optimizer=optim.SGD, learning_rate=0.1)]
    return TrainStep(Network(ops), compile=False, **options)


def found(step, batch=None, **options):
    """The origins; that state and classes stay as they are."""
    held, call = snapshot(step.state), nn.Linear.__call__
    out = origins(step, {"x": X} if batch is None else batch, KEY, 0, **options)
    assert nn.Linear.__call__ is call
    assert all(array is held[path] for path, array in snapshot(step.state).items())
    return out


def log_of_a_negative(x):
    return x + mx.log(-1 - mx.square(x))


def steep(x):
    """Zeros whose gradient is infinite."""
    return x + mx.sqrt(x * 0)


def test_a_finite_step_has_no_origin():
    (one,) = found(step_of())
    assert one.part == "nothing" and "finite" in str(one)


def test_a_module_in_a_list_in_a_sequential_forward():
    (one,) = found(step_of(Deep(inside=log_of_a_negative)))
    assert (one.part, one.place) == ("forward", "model.rows.1.0.layers.1")
    assert "(Fault), which returns numbers that aren't finite for finite inputs" in str(one)
    assert "model.rows.1.0.layers.1.inner is the first call with such a result" in str(one)


def test_code_of_a_model_between_its_modules():
    (one,) = found(step_of(Deep(between=log_of_a_negative)))
    assert (one.part, one.place) == ("forward", "model")
    assert "model.rows.1.0.layers.0 is the first call" in str(one)


def test_an_op_before_the_model_and_a_loss_after_it():
    (one,) = found(step_of(before=[Infinite("x", "x")]))
    assert (one.part, one.place) == ("forward", "op 0 (Infinite)") and "under x" in str(one)
    (one,) = found(step_of(loss=Loss(lambda y: y / 0)))
    assert (one.part, one.place) == ("forward", "op 1 (Loss)")


def test_weights_and_batch_that_came_with_it():
    model = Deep()
    model.rows[1][0].layers[0].bias = mx.array([0, 1, float("nan"), 0])
    first, second = found(step_of(model))
    assert (first.part, first.place) == ("weights", "model.rows.1.0.layers.0.bias")
    assert (second.part, second.place) == ("forward", "model.rows.1.0.layers.0")
    bad = mx.where(mx.arange(20).reshape(5, 4) == 7, float("inf"), X)
    first, second = found(step_of(), {"x": bad, "label": mx.array([1, 2])})
    assert (first.part, first.place) == ("data", "x") and "x has 0 NaN and 1 infinite of 20 numbers" in str(first)
    assert second.part == "forward" and second.place == "model.rows.0.layers.0"


@pytest.mark.parametrize("options", [{}, {"precision": "bf16"}, {"flatten": True}])
def test_a_module_backward(options):
    (one,) = found(step_of(Deep(inside=steep), **options))
    assert (one.part, one.place) == ("backward", "model.rows.1.0.layers.1")
    assert "first leaf without a finite one: model.rows.0.layers.0" in str(one)


def test_code_between_modules_and_a_loss_backward():
    (one,) = found(step_of(Deep(between=steep)))
    assert (one.part, one.place) == ("backward", "model")
    (one,) = found(step_of(loss=Loss(steep)))
    assert (one.part, one.place) == ("backward", "loss") and "begins in the ops after them" in str(one)


def test_gradients_whose_squares_overflow():
    (one,) = found(step_of(loss=Loss(lambda y: 1e25 * y)))
    assert one.part == "norm" and one.place.startswith("model.")


def test_half_precision_overflows_in_a_module():
    (one,) = found(step_of(Deep(inside=lambda x: 1e3 + 1e5 * mx.square(x)), precision="fp16"))
    assert (one.part, one.place) == ("forward", "model.rows.1.0.layers.1")
    (one,) = found(step_of(Deep(inside=lambda x: 1e3 + 1e5 * mx.square(x))))
    assert one.part == "nothing"


class Timed(Deep):
    def __call__(self, x, times=None, key=None):
        assert times is not None
        return mx.concatenate([super().__call__(x)] * 4, axis=-1) * times.sum(axis=1, keepdims=True)


def mean_flow(model):
    update = UpdateOp(model, optimizer=optim.SGD, learning_rate=0.1)
    return TrainStep(Network([ObjectiveOp(model, MeanFlow()), update]))


@pytest.mark.parametrize("fault", [log_of_a_negative, steep])
def test_inside_of_a_jvp_values_and_tangents_count(fault):
    jvp = mx.jvp
    first, *_ = found(mean_flow(Timed(inside=fault)))
    assert (first.part, first.place) == ("forward", "model.rows.1.0.layers.1")
    first, *_ = found(mean_flow(Timed(between=fault)))
    assert (first.part, first.place) == ("forward", "model")
    assert mx.jvp is jvp and found(mean_flow(Timed()))[0].part == "nothing"


def test_one_of_two_losses():
    mx.random.seed(0)
    a, b = Deep(), Deep(inside=steep)
    second = Loss()
    second.inputs, second.outputs, second.losses = ("z",), ("other",), ("other",)
    ops = [ModelOp(a, "x", "y"), ModelOp(b, "x", "z"), Loss(), second,
           UpdateOp(a, optimizer=optim.SGD, learning_rate=0.1, name="a"),
           UpdateOp(b, "other", optim.SGD, 0.1, name="b")]  # fmt: skip
    (one,) = found(TrainStep(Network(ops), compile=False))
    assert one.part == "backward" and "gradient of other" in str(one) and one.place.endswith("rows.1.0.layers.1")
