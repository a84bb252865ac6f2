"""Convolutions of doubled images, as four numbers' worth of products and as written, against sums in float64."""

import mlx.core as mx
import numpy as np
import pytest

from models import doubling
from models.convolution import Conv1d, Conv2d, Convolution
from models.convolution_forms import Geometry, spread
from models.doubling import double, joined


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def reference(x, w, bias=0.0):
    """The sum over the window of the doubled image, in float64."""
    x, w = np.array(x, np.float64).repeat(2, axis=1).repeat(2, axis=2), np.array(w, np.float64)
    wide = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = x.shape[1:3]
    return sum(wide[:, i : i + height, j : j + width] @ w[:, i, j].T for i in range(3) for j in range(3)) + bias


def close(found, wanted):
    wanted = np.array(wanted, np.float64)
    assert found.shape == wanted.shape and np.abs(np.array(found) - wanted).max() < 3e-6 * np.abs(wanted).max()


@pytest.fixture(params=["auto", "convolution"])
def layer(request, monkeypatch):
    """A layer that multiplies by the joined kernel, and one that doubles first, as all do on a GPU."""
    monkeypatch.setattr(Convolution, "weight_gradient", request.param)
    made, used = Conv2d(16, 8), []
    made.bias = normal(8, seed=9)
    monkeypatch.setattr("models.convolution.joined", lambda w: used.append(1) or joined(w))
    yield made
    assert bool(used) == (request.param == "auto")


def test_every_derivative_against_float64(layer):
    x, t, probe = normal(2, 5, 4, 16), normal(2, 5, 4, 16, seed=1), normal(2, 10, 8, 8, seed=2)
    w, dw = layer.weight, normal(8, 3, 3, 16, seed=3)

    def value(x, w):
        layer.weight = w
        return layer(x, doubled=True)

    (y,), (slope,) = mx.jvp(value, [x, w], [t, dw])
    close(y, reference(x, w, np.array(layer.bias)))
    close(slope, reference(t, w) + reference(x, dw))

    def inner(f):  # <f, probe>, linear in each argument: its gradients are known by their products with the tangents
        return lambda x, w: (f(x, w) * probe).sum()

    def moved(x, w):
        return mx.jvp(value, [x, w], [t, dw])[1][0]

    wanted = np.array(probe, np.float64)
    for f, by_x, by_w in ((value, reference(t, w), reference(x, dw)), (moved, reference(t, dw), reference(t, dw))):
        for run in (mx.grad(inner(f), (0, 1)), mx.compile(mx.grad(inner(f), (0, 1)))):
            dx, dwt = run(x, w)
            assert np.isclose((dx * t).sum().item(), (by_x * wanted).sum(), rtol=1e-4, atol=1e-3)
            assert np.isclose((dwt * dw).sum().item(), (by_w * wanted).sum(), rtol=1e-4, atol=1e-3)


def test_under_vmap(layer):
    x = normal(3, 2, 4, 4, 16)
    found = mx.vmap(lambda x: layer(x, doubled=True))(x)
    close(found, np.stack([reference(one, layer.weight, np.array(layer.bias)) for one in x]))


@pytest.mark.parametrize("options", [{"kernel": 1}, {"stride": 2}, {"padding": 0}, {"groups": 2}], ids=str)
def test_other_windows_double_first(options):
    layer, x = Conv2d(4, 4, **options), normal(2, 4, 4, 4)
    assert mx.allclose(layer(x, doubled=True), layer(double(x)), atol=1e-5).item()


def test_the_joined_kernel_along_one_axis():
    layer = Conv1d(3, 2)
    x = normal(2, 5, 3)
    geometry = Geometry((2,), (1,), (1,))
    close(spread(geometry, (10,))(x, joined(layer.weight)), layer(mx.repeat(x, 2, axis=1)))


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_doubled_images_derivatives_are_mlxs(dtype, monkeypatch):
    x, t, g = (normal(*shape, seed=i).astype(dtype) for i, shape in enumerate([(2, 3, 4, 5)] * 2 + [(2, 6, 8, 5)]))
    rules = [
        lambda f: f(x),
        lambda f: mx.jvp(f, [x], [t])[1][0],
        lambda f: mx.vjp(f, [x], [g])[1][0],
        lambda f: mx.vmap(f)(mx.stack([x, t])),
        lambda f: mx.grad(lambda x: mx.square(mx.grad(lambda x: (mx.sin(f(x)) * g).sum())(x)).sum())(x),
        lambda f: mx.grad(lambda x: (mx.jvp(lambda x: mx.sin(f(x)), [x], [t])[1][0] * g).sum())(x),
    ]
    least = 1e-5 if dtype == mx.float32 else 5e-2  # MLX adds four numbers of 8 bits one by one
    wanted = [rule(doubling.plain) for rule in rules]
    monkeypatch.setattr(doubling, "available", lambda x: True)
    for rule, right in zip(rules, wanted, strict=True):
        found = rule(doubling.double)
        assert (found.shape, found.dtype) == (right.shape, right.dtype)
        np.testing.assert_allclose(*(np.array(a.astype(mx.float32)) for a in (found, right)), rtol=least, atol=least)
