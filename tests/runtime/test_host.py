"""Modules on the host: NumPy's layers give what MLX's do, and only modules that say so have a twin."""

import copy

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from models.linear import Linear
from runtime.host import HOST, constant, namespace, on_host, twin, uniform

X = np.random.default_rng(0).standard_normal((3, 4, 64)).astype(np.float32)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("name", ["logsumexp", "softmax"])
def test_what_numpy_lacks_is_what_mlx_has(name, axis):
    found, want = (getattr(namespace(x), name)(x, axis=axis) for x in (30 * X, mx.array(30 * X)))
    np.testing.assert_allclose(found, np.array(want), rtol=1e-5, atol=1e-7)
    assert found.dtype == np.float32
    assert (
        HOST.logsumexp(X, axis=axis, keepdims=True).shape == mx.logsumexp(mx.array(X), axis=axis, keepdims=True).shape
    )


def test_small_functions_are_those_of_mlx():
    index = np.argmax(X, axis=-1)[..., None]
    given = {"clip": (X, -0.5, 0.7), "take_along_axis": (X, index, -1), "logaddexp": (90 * X, 0.0),
             "broadcast_to": (X[:, :1], X.shape)}  # fmt: skip
    for name, (x, *more) in given.items():
        want = getattr(mx, name)(mx.array(x), *(mx.array(one) if isinstance(one, np.ndarray) else one for one in more))
        found = getattr(HOST, name)(x, *more)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.array(want), rtol=1e-6, atol=1e-6)
    assert HOST.broadcast_to(X, X.shape) is X


def test_a_namespace_is_that_of_the_array_and_a_constant_of_either():
    assert namespace(mx.array(X)) is mx and namespace(X) is HOST and HOST.tanh is np.tanh
    for x in (X, mx.array(X)):
        product = x[..., :2] * constant([1.0, 2.0])[namespace(x)]
        assert str(product.dtype).endswith("float32") and isinstance(product, type(x))
    np.testing.assert_allclose(HOST.erf(X), np.array(mx.erf(mx.array(X))), atol=1e-6)


def test_random_numbers_are_those_of_the_key_for_either():
    for seed in (0, 5, 0):
        key = mx.random.key(seed)
        want = mx.random.uniform(0.1, 0.9, (3, 2), key=key)
        for xp in (mx, HOST):
            np.testing.assert_array_equal(np.array(uniform(xp, 0.1, 0.9, (3, 2), key)), np.array(want))
    assert (uniform(HOST, 0.1, 0.9, (3, 2), mx.random.key(5)) != np.array(want)).all()


LAYERS = {
    "linear": lambda: Linear(64, 5),
    "no bias": lambda: nn.Linear(64, 5, bias=False),
    "16 bits": lambda: nn.Linear(64, 5),
    "quantized": lambda: Linear(64, 5).to_quantized(32, 8),
    "norm": lambda: nn.LayerNorm(64),
    "plain norm": lambda: nn.LayerNorm(64, affine=False),
    "norm without bias": lambda: nn.LayerNorm(64, bias=False),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_those_of_mlx(name):
    mx.random.seed(0)
    layer = LAYERS[name]()
    layer.update(
        {key: value + 0.3 * mx.random.normal(value.shape) for key, value in layer.trainable_parameters().items()}
    )
    if name == "16 bits":
        layer.set_dtype(mx.float16)
        layer, wide = copy.deepcopy(layer), layer
        wide.set_dtype(mx.float32)
    else:
        wide = layer
    found = twin(layer)(X)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(wide(mx.array(X))), atol=2e-5)


class Nest(nn.Module):
    """Layers in a list of lists, an array of its own and a number."""

    runs_on_host = True

    def __init__(self):
        super().__init__()
        self.layers, self.twice = [[nn.Linear(64, 64)], [nn.Linear(64, 64)]], 2

    def __call__(self, x):
        """x (..., 64) -> (..., 64)."""
        for (layer,) in self.layers:
            x = namespace(x).tanh(layer(x)) * self.twice
        return x


def test_a_twin_has_the_weights_of_when_it_was_made_and_leaves_the_module_alone():
    module = Nest()
    want = np.array(module(mx.array(X)))
    host = on_host(module)
    np.testing.assert_allclose(host(X), want, atol=1e-5)
    module.layers[0][0].weight = mx.zeros((64, 64))
    np.testing.assert_allclose(host(X), want, atol=1e-5)
    assert isinstance(module.layers[1][0], nn.Linear) and np.abs(np.array(module(mx.array(X))) - want).max() > 0.1


def test_what_does_not_say_so_and_what_computes_on_a_gpu_has_no_twin(monkeypatch):
    assert on_host(nn.Linear(2, 2)) is None
    assert on_host(Nest()) is not None
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    assert on_host(Nest()) is None
