"""What is pruned and quantised, and that nothing is lost in a file."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from models.convolution import Conv2d
from models.linear import Linear
from runtime.errors import UsageError
from runtime.quantized import QuantizedEmbedding, QuantizedLinear
from runtime.slots import snapshot
from training import compressed


class Odd(nn.Linear):
    """A layer whose rows may mean anything."""


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = mx.random.normal((9, 7)) / 9  # as recursive models have theirs
        shared = Linear(64, 64)
        self.table = nn.Embedding(5, 64)
        self.layers = [nn.Linear(64, 32), {"deep": [Linear(128, 64, bias=False), shared]}, nn.LayerNorm(64)]
        self.again, self.short, self.odd, self.conv = shared, Linear(48, 64), Odd(64, 64), Conv2d(64, 64)


def weights_of(model):
    """Every weight once, by path."""
    return {p: np.array(a) for p, a in snapshot(model).items() if a.ndim > 1 and "again" not in p}


def test_exactly_the_share_of_least_magnitude_over_all_layers_is_pruned():
    model = Model()
    before, biases = weights_of(model), np.array(model.layers[0].bias)
    paths = compressed.prune({"m": model}, 0.3)
    after = weights_of(model)
    assert {p.removeprefix("m.") for p in paths} in ({*before}, {p.replace("layers.1.deep.1", "again") for p in before})
    total = sum(w.size for w in before.values())
    flat = np.sort(np.abs(np.concatenate([w.ravel() for w in before.values()])))
    bound = flat[round(0.3 * total)]
    assert sum((w == 0).sum() for w in after.values()) == round(0.3 * total)
    for path, values in before.items():
        np.testing.assert_array_equal(after[path], np.where(np.abs(values) < bound, 0, values))
    np.testing.assert_array_equal(np.array(model.layers[0].bias), biases)
    assert model.again is model.layers[1]["deep"][1]
    shares = [np.mean(w == 0) for w in after.values()]
    assert max(shares) - min(shares) > 0.1  # over all layers, not in each


def test_equal_magnitudes_are_pruned_to_the_very_number():
    model = nn.Linear(10, 10)
    model.weight = mx.ones((10, 10))
    compressed.prune({"m": model}, 0.37)
    assert np.sum(np.array(model.weight) == 0) == 37


def test_layers_that_can_are_quantised_wherever_they_stand():
    model = Model()
    taken = compressed.quantise({"m": model}, 8, 64)
    deep = model.layers[1]["deep"]
    assert set(taken) in ({"m.table", "m.layers.0", "m.layers.1.deep.0", f"m.{place}"}
                          for place in ("again", "layers.1.deep.1"))  # fmt: skip
    assert isinstance(model.table, QuantizedEmbedding) and isinstance(model.layers[0], QuantizedLinear)
    assert isinstance(deep[0], QuantizedLinear) and deep[1] is model.again and isinstance(deep[1], QuantizedLinear)
    kinds = type(model.layers[2]), type(model.short), type(model.odd), type(model.conv)
    assert kinds == (nn.LayerNorm, Linear, Odd, Conv2d)
    other = Model()
    compressed.quantise({"m": other}, 8, 64, only=["m.table"])
    assert isinstance(other.table, QuantizedEmbedding) and isinstance(other.layers[0], nn.Linear)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 300])
def test_what_is_packed_comes_back(size):
    rng = np.random.default_rng(size)
    values = (rng.normal(size=(size, 3)) * (rng.random((size, 3)) > 0.5)).astype(np.float32)
    arrays = {"a": mx.array(values), "b": mx.ones(2)}
    small = compressed.packed(arrays, ["a"])
    assert small.keys() == {"a#mask", "a#values", "b"} and small["a#values"].size == (values != 0).sum()
    assert small["a#mask"].nbytes == -(-3 * size // 8)
    back = compressed.unpacked(small, {"a": mx.zeros((size, 3)), "b": mx.zeros(2)})
    assert back.keys() == arrays.keys()
    np.testing.assert_array_equal(np.array(back["a"]), values)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: compressed.prune({"m": Model()}, 1.0), "above 0 and below 1, got 1.0"),
        (lambda: compressed.prune({"m": nn.LayerNorm(4)}, 0.5), "no weights of two axes"),
        (lambda: compressed.quantise({"m": Model()}, 7, 64), "got bits=7, group=64"),
        (lambda: compressed.quantise({"m": Model()}, 8, 48), "got bits=8, group=48"),
        (lambda: compressed.quantise({"m": nn.Sequential(nn.Linear(10, 10))}, 8, 64), "multiple of 64"),
    ],
)  # fmt: skip
def test_mistakes_are_told(call, said):
    with pytest.raises(UsageError, match=said):
        call()
