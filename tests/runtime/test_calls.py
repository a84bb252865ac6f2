"""Watched calls: every one, inner before outer, through lists and compiled functions, and nothing afterwards."""

import mlx.core as mx
import mlx.nn as nn
import pytest

from runtime.calls import modules_in, watched
from tests.runtime.nets import Nest

X = mx.ones((2, 4))


class Base(nn.Module):
    def __call__(self, x):
        return x + 1


class Heir(Base):
    pass


class Caller(Base):
    def __call__(self, x):
        return super().__call__(x) * 2


def test_every_call_in_the_order_in_which_they_end():
    model, order = Nest(), []
    with watched(dict(modules_in(model)), lambda name, thing, given, out: (order.append(name), out)[1]):
        y = model(X)
    assert order == ["first", "rows.0.layers.0", "rows.0.layers.1", "rows.0.layers.2.layers.0", "rows.0.layers.2",
                     "rows.0", "first", "rows.1.in", "still", "last", ""]  # fmt: skip
    assert (y == model(X)).all().item() and len(order) == 11


def test_modules_in_tuples_and_under_private_names_are_found():
    model = nn.Module()
    model.a, model._b = (nn.Linear(1, 1),), nn.ReLU()
    assert [path for path, _ in modules_in(model)] == ["", "a.0", "_b"]
    assert [path for path, _ in modules_in({"g": model, "h": [model]})][:4] == ["g", "g.a.0", "g._b", "h.0"]
    assert list(modules_in({})) == [] and list(modules_in(None)) == []


def test_inherited_calls_and_super_are_one_call_and_classes_are_put_back():
    before = (Base.__call__, Heir.__call__, Caller.__call__)
    things, seen = {"base": Base(), "heir": Heir(), "caller": Caller()}, []
    with watched(things, lambda name, thing, given, out: (seen.append((name, given[0][0].item())), out)[1]):
        assert [things[name](mx.array(n)).item() for n, name in enumerate(things)] == [1, 2, 6]
        Base()(mx.array(9))  # another object of a watched class
    assert seen == [("base", 0), ("heir", 1), ("caller", 2)]
    assert (Base.__call__, Heir.__call__, Caller.__call__) == before and "__call__" not in Heir.__dict__


def test_what_after_returns_is_the_result_and_gradients_pass_through_it():
    layer = Base()
    with watched({"x": layer}, lambda name, thing, given, out: 3 * out):
        assert mx.grad(lambda x: layer(x))(mx.array(1.0)).item() == 3.0
        assert mx.compile(layer)(mx.array(1.0)).item() == 6.0


def test_an_error_inside_puts_the_classes_back():
    before = Base.__call__
    with pytest.raises(ZeroDivisionError), watched({"x": Base()}, lambda *given: 1 / 0):
        Base()(mx.array(1))
        next(iter(()), None)
        raise ZeroDivisionError
    assert Base.__call__ is before
