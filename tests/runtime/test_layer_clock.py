"""Whose time it is: layers that advance a clock by hand, whatever runs around them, and numbers that stay the same."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from models.batch_norm import BatchNorm
from models.checkpointing import checkpointed
from models.linear import Linear
from models.mlp import MLP
from models.unet import UNet
from runtime.layer_clock import OUTSIDE, REST, LayerClock, evaluated
from runtime.trees import flatten
from runtime.work import NORM

X = mx.random.normal((6, 4), key=mx.random.key(0))


class Time:
    """A clock that moves only when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Slow(nn.Module):
    """A linear layer that takes `forward` seconds, and `backward` for its gradient, on a clock."""

    def __init__(self, time, forward, backward):
        super().__init__()
        self.weight = mx.eye(4) * 0.5
        self._slow = slow(time, forward, backward)

    def __call__(self, x):
        return self._slow(x, self.weight)


def slow(time, forward, backward) -> Any:
    @mx.custom_function
    def multiply(x, w):
        time.now += forward
        return mx.stop_gradient(x) @ mx.stop_gradient(w)

    @multiply.vjp
    def _(primals, cotangent, _output):
        time.now += backward
        x, w = primals
        return cotangent @ w.T, x.T @ cotangent

    @multiply.jvp
    def _(primals, tangents):
        time.now += 100.0
        return tangents[0] @ primals[1]

    return multiply


class Nest(nn.Module):
    """Layers in a list and in a Sequential; takes time of its own before, between and after them."""

    def __init__(self, time):
        super().__init__()
        self._glue = [slow(time, *pair) for pair in ((1.0, 10.0), (2.0, 20.0))]
        self._eye = mx.eye(4)
        self.many = [Slow(time, 3.0, 30.0), nn.Sequential(Slow(time, 4.0, 40.0), nn.Tanh())]

    def __call__(self, x):
        x = self.many[0](self._glue[0](x, self._eye))
        return self.many[1](self._glue[1](x, self._eye))


def test_every_layer_has_its_own_time_forward_and_backward():
    time = Time()
    model, late = Nest(time), slow(time, 5.0, 50.0)
    clock = LayerClock({"net": model}, time)

    def loss(parameters, x):
        model.update(parameters)
        return late(model(x), mx.eye(4)).square().sum()

    with clock.attached():
        clock.begin()
        mx.eval(mx.grad(loss, argnums=(0, 1))(model.parameters(), X))
        time.now += 7.0
        clock.end([])
    seconds = {name: (entry.seconds["forward"], entry.seconds["backward"]) for name, entry in clock.entries.items()}
    assert seconds == {
        OUTSIDE: (0.0, 55.0), "net": (3.0, 30.0), "net.many.0": (3.0, 30.0), "net.many.1": (0.0, 0.0),
        "net.many.1.layers.0": (4.0, 40.0), "net.many.1.layers.1": (0.0, 0.0), REST: (0.0, 7.0),
    }  # fmt: skip  # what runs after the last layer is known only at the first border of the way back
    assert sum(entry.total for entry in clock.entries.values()) == time.now == 172.0
    assert {name: entry.calls for name, entry in clock.entries.items()}["net.many.0"] == 1


def test_a_layer_that_is_called_twice_and_one_in_two_places_count_under_their_first_path():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    clock = LayerClock({"a": model, "b": shared})
    with clock.attached():
        clock.begin()
        mx.eval(model(X))
    assert clock.entries["a.layers.0"].calls == 2 and not any(name.startswith("b") for name in clock.entries)
    assert clock.entries["a.layers.0"].work["forward"].flops == 2 * (2 * 6 * 4 * 4 + 6 * 4)


class Doubled(nn.Linear):
    """Calls its base class."""

    def __call__(self, x):
        return 2 * super().__call__(x)


def test_a_call_of_the_base_class_is_not_a_call_of_its_own():
    model = nn.Sequential(nn.Linear(4, 4), Doubled(4, 4))
    clock = LayerClock({"m": model})
    with clock.attached():
        clock.begin()
        mx.eval(model(X))
    assert [clock.entries[f"m.layers.{i}"].calls for i in (0, 1)] == [1, 1]


def test_operations_of_a_gradient_are_those_that_were_asked_for():
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    model.layers[1].freeze()
    clock = LayerClock({"m": model})

    def loss(trained):
        model.update(trained)
        return model(X).square().sum()

    with clock.attached():
        clock.begin()
        mx.eval(mx.grad(loss)(model.trainable_parameters()))
    flops = {name: tuple(entry.work[phase].flops for phase in ("forward", "backward"))
             for name, entry in clock.entries.items()}  # fmt: skip
    first, last = 2 * 6 * 4 * 8, 2 * 6 * 8 * 3
    assert flops["m.layers.0"] == (first + 48, first + 48)  # no gradient of the data
    assert flops["m.layers.1"] == (NORM * 48, NORM * 48)  # frozen: of its input alone
    assert flops["m.layers.2"] == (last + 18, 2 * last + 18)
    assert flops["m"] == (0, 0)


def gradients(model, function):
    def loss(trained):
        model.update(trained)
        return function(model)

    held = model.trainable_parameters()
    found = mx.grad(loss)(held)
    model.update(held)
    mx.eval(found)
    return {name: np.array(value.astype(mx.float32)) for name, value in flatten(found).items()}


def moving(model):
    """A loss of values and tangents, as MeanFlow's is."""
    (out,), (tangent,) = mx.jvp(lambda x: model(x), [X], [mx.cos(X)])
    return (out - 0.3 * tangent).square().mean()


FUNCTIONS = {
    "grad": lambda model: model(X).square().mean(),
    "jvp": moving,
    "checkpoint": lambda model: checkpointed(model, X).square().mean(),
    "checkpoint and jvp": lambda model: moving(lambda x: checkpointed(model, x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_gradients_are_the_same_under_the_clock(name, dtype):
    mx.random.seed(0)
    model = nn.Sequential(Linear(4, 16), nn.Tanh(), nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16)), Linear(16, 2))
    model.set_dtype(dtype)
    plain = gradients(model, FUNCTIONS[name])
    clock = LayerClock({"m": model})
    with clock.attached():
        clock.begin()
        timed = gradients(model, FUNCTIONS[name])
    assert plain.keys() == timed.keys() and any(np.abs(value).max() > 0 for value in plain.values())
    for path in plain:
        np.testing.assert_array_equal(timed[path], plain[path])
    assert clock.entries["m.layers.3"].calls >= 1


def test_tangents_belong_to_their_layer():
    time = Time()
    model = nn.Sequential(Slow(time, 1.0, 10.0), nn.Tanh())
    clock = LayerClock({"m": model}, time)
    with clock.attached():
        clock.begin()
        mx.eval(mx.jvp(model, [X], [X]))
    assert clock.entries["m.layers.0"].seconds["forward"] == 101.0
    assert clock.entries["m.layers.0"].work["forward"].flops == 2 * 24  # elementwise, once more for the tangent


def test_attention_is_a_layer_of_its_own():
    model = UNet((8, 8, 1), channels=8, blocks=1, multipliers=(1,), attention=(8,))
    clock = LayerClock({"m": model})
    x = mx.zeros((2, 8, 8, 1))

    def loss(trained):
        model.update(trained)
        return model(x, times=mx.zeros((2, 2))).sum()

    with clock.attached():
        clock.begin()
        mx.eval(mx.grad(loss)(model.trainable_parameters()))
    entry = clock.entries["m.middle.0.attention.scaled_dot_product"]
    width = 8 * 8
    once = entry.work["forward"].flops
    assert once == 4 * 2 * width * width * 8 and entry.work["backward"].flops == 2 * once


def test_statistics_change_and_weights_stay_themselves():
    layer = BatchNorm(4)
    before, weight = layer.running_mean, layer.weight
    clock = LayerClock({"m": layer})
    with clock.attached():
        clock.begin()
        mx.eval(layer(X))
    assert layer.weight is weight and layer.running_mean is not before
    np.testing.assert_allclose(np.array(layer.running_mean), 0.1 * np.array(X).mean(0), rtol=1e-5)


def test_classes_are_as_before_also_after_an_error():
    model = MLP((2,), hidden=4, depth=1)
    clock = LayerClock({"m": model})
    calls, attention = (
        {kind: kind.__call__ for kind in map(type, model.modules())},
        mx.fast.scaled_dot_product_attention,
    )
    inherited = [kind for kind in calls if "__call__" not in vars(kind)]
    with pytest.raises(ValueError, match="of no use"), clock.attached():
        assert any(kind.__call__ is not call for kind, call in calls.items())
        raise ValueError("of no use")
    assert all(kind.__call__ is call for kind, call in calls.items())
    assert not [kind for kind in inherited if "__call__" in vars(kind)]
    assert mx.fast.scaled_dot_product_attention is attention


def test_evaluation_inside_of_a_jvp_rule_keeps_the_graph_of_an_outer_gradient():
    @mx.custom_function
    def identity(x):
        return mx.stop_gradient(x)

    @identity.vjp
    def _(_primal, cotangent, _output):
        return cotangent

    @identity.jvp
    def _(_primal, tangent):
        evaluated(tangent)
        return tangent

    def loss(w):
        return mx.jvp(lambda x: identity(x @ w), [X], [X])[1][0].square().sum()

    w = mx.eye(4)
    np.testing.assert_allclose(np.array(mx.grad(loss)(w)), np.array(2 * X.T @ (X @ w)), rtol=1e-5)
