"""Batches computed in parts at once: where they are, where not, and that results are those of the whole batch."""

import ctypes
import os
from functools import partial
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from models.convolution import Conv2d
from models.layers import Dropout
from models.pooling import max_pool
from runtime import streams
from runtime.calls import watched
from runtime.errors import UsageError
from tests.models.compiled import kernels

wheel = pytest.mark.skipif(not streams.WHEEL, reason="only MLX's CPU backend on Linux computes in parts")


class Rows(nn.Module):
    """Images (B, 6, 6, 2), numbers (B,) -> (B, 3) and, asked for, those of before; notes lengths and streams."""

    independent_rows = True

    def __init__(self, dropout=0.0):
        super().__init__()
        self.conv, self.leave, self.dropout = Conv2d(2, 4, padding=0), nn.Linear(16, 3), Dropout(dropout)
        self._calls = SimpleNamespace(seen=[])

    def __call__(self, x, number=None, key=None, both=False):
        self._calls.seen.append((len(x), mx.default_stream(mx.default_device())))
        h = self.dropout(mx.tanh(max_pool(self.conv(x))), key)
        out = self.leave(h.reshape(len(x), -1))
        out = out if number is None else out * number[:, None]
        return (out, h) if both else out

    @property
    def lengths(self):
        return [length for length, _ in self._calls.seen]


RNG = np.random.default_rng(0)
X, NUMBER = mx.array(RNG.normal(size=(7, 6, 6, 2)).astype(np.float32)), mx.arange(7.0)


@pytest.fixture
def model():
    mx.random.seed(0)
    return Rows()


@pytest.fixture(autouse=True)
def small_batches_count(monkeypatch):
    monkeypatch.setattr(streams, "LEAST", 0)
    monkeypatch.setattr(streams, "REUSE", 0)
    with mx.stream(mx.cpu):
        yield


def close(a, b):
    np.testing.assert_allclose(np.array(a), np.array(b), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("count, lengths", [(2, [3, 4]), (3, [2, 2, 3]), (7, [1] * 7)])
def test_parts_are_computed_on_streams_of_their_own_and_joined_in_order(model, count, lengths):
    wanted = model(X, number=NUMBER, both=True)
    model._calls.seen.clear()
    out = streams.Divided(model, count)(X, number=NUMBER, both=True)
    (whole, own), *seen = model._calls.seen  # the first call only counts the work, and nothing of it is computed
    assert whole == 7 and [length for length, _ in seen] == lengths
    assert seen[0][1] == own and all(a != b for i, (_, a) in enumerate(seen) for _, b in seen[:i])
    assert isinstance(out, tuple)
    for one, same in zip(out, wanted, strict=True):
        close(one, same)


def derivatives(call, model, weights, x):
    """Of the weights and the input, a jvp along the input, and the gradient of that."""
    tangent = mx.ones_like(x)

    def loss(weights, x):
        model.update(weights)
        return call(x, number=NUMBER).square().mean()

    def slope(weights, x):
        model.update(weights)
        return mx.jvp(lambda v: call(v, number=NUMBER), [x], [tangent])[1][0]

    by_weight, by_input = mx.grad(loss, argnums=(0, 1))(weights, x)
    of_slope = mx.grad(lambda weights: slope(weights, x).square().sum())(weights)
    return {"input": by_input, "slope": slope(weights, x), **dict(tree_flatten([by_weight, of_slope]))}


@pytest.mark.parametrize("compiled", [False, True])
def test_derivatives_are_those_of_the_whole_batch(model, compiled):
    def found(call):
        run, weights = partial(derivatives, call, model), model.trainable_parameters()
        out = (mx.compile(run) if compiled else run)(weights, X)
        mx.eval(out)
        model.update(weights)
        return out

    whole, parted = found(model), found(streams.Divided(model, 2))
    assert sorted(set(model.lengths)) == [3, 4, 7] and whole.keys() == parted.keys()
    for path, array in whole.items():
        close(parted[path], array)


def whole(model, *args, **kwargs):
    """Whether the model is called once, for all rows."""
    model._calls.seen.clear()
    streams.Divided(model, 2)(*args, **kwargs)
    return model.lengths == [7]


def test_whole_stay_little_work_arrays_of_other_lengths_and_watched_calls(model, monkeypatch):
    assert not whole(model, X) and not whole(model, X, key=mx.random.key(0))
    assert whole(model, X, number=mx.array(2.0)[None]) and whole(model, X, number=mx.array([2.0]))
    with watched({"conv": model.conv}, lambda name, thing, given, out: out):
        assert whole(model, X)
    flops = 2 * 7 * (4 * 4 * 4) * (9 * 2) + 2 * 7 * 16 * 3
    assert streams.counted(model, (X,), {})[1] == flops
    weights = 9 * 2 * 4 + 4 + 16 * 3 + 3
    for name, most in (("LEAST", flops), ("REUSE", flops / weights)):
        with monkeypatch.context() as changed:
            changed.setattr(streams, name, most)
            assert not whole(model, X)
            changed.setattr(streams, name, most * 1.01)
            assert whole(model, X)


def test_rows_that_meet_are_not_parted():
    class Declared(nn.Sequential):
        independent_rows = True

    assert not streams.independent(nn.Linear(1, 1)) and not streams.independent(lambda x: x)
    assert streams.independent(Rows()) and streams.independent(Declared(nn.Linear(1, 1)))
    for layer in (nn.BatchNorm(1), nn.Dropout(0.5), nn.Dropout2d(), Dropout(0.1)):
        model = Declared(nn.Linear(1, 1), Declared(layer))
        assert not streams.independent(model) and streams.independent(model.train(False))
    assert streams.independent(Rows(dropout=0.0)) and not streams.independent(Rows(dropout=0.1))


@wheel
def test_the_environment_says_in_how_many_parts(model, monkeypatch):
    monkeypatch.delenv("MLX_LAB_STREAMS", raising=False)
    for cores, threads, count in (({0}, 1, 1), ({0, 3}, 1, 2), ({0, 3}, 2, 1), (set(range(8)), 1, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        monkeypatch.setattr(streams.runtime.blas, "threads", lambda threads=threads: threads)
        assert streams.parts() == count
        assert isinstance(streams.divided(model), streams.Divided) == (count > 1)
    for given, count in (("1", 1), ("3", 3)):
        monkeypatch.setenv("MLX_LAB_STREAMS", given)
        assert streams.parts() == count
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    assert streams.parts() == 1 and streams.divided(model) is model
    for wrong in ("0", "-1", "off", "1.5"):
        monkeypatch.setenv("MLX_LAB_STREAMS", wrong)
        with pytest.raises(UsageError, match=f"MLX_LAB_STREAMS must be a positive number.*{wrong!r}"):
            streams.parts()


def test_attributes_are_the_models(model):
    assert streams.Divided(model, 2).conv is model.conv


@wheel
def test_branches_of_a_graph_take_turns():
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    assert getenv(b"MLX_BFS_MAX_WIDTH") == os.environ.get("MLX_BFS_MAX_WIDTH", str(streams.WIDTH)).encode()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_many_rows_are_cut_into_parts_of_different_lengths(count):
    for rows in (64 * count, 64 * count + 1, 1024, 4097):
        ends = streams.cuts(rows, count)
        lengths = np.diff(ends)
        assert ends[0] == 0 and ends[-1] == rows and len({*lengths.tolist()}) == count
        assert max(lengths) - min(lengths) <= 2 * count  # nearly equal work
    assert streams.cuts(8, 2) == [0, 4, 8]


@wheel
def test_a_kernel_of_either_part_holds_its_constants():
    """mx.compile would take them out of one part's, were the parts of one length: fewer broadcasts inside of it."""
    ends = streams.cuts(256, 2)

    def both(x):
        parts = []
        for stream, start, end in zip(streams.streams(2), ends, ends[1:], strict=False):
            with mx.stream(stream):
                parts.append(mx.maximum(x[start:end] + 1, -40) * 2)
        return parts

    x = mx.random.normal((256, 3))
    mx.eval(x)
    assert [name.count("Broadcast") for name in kernels(both, x)] == [3, 3]
