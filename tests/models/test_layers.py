"""Layers, against what NumPy and a hand computation give."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from models.group_norm import GroupNorm
from models.layers import ClassEmbedding, Dropout, TimeEmbedding, Unlabelled, join_times
from runtime.errors import UsageError


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def test_join_times():
    x, times = normal(3, 2), mx.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    assert np.allclose(np.array(join_times(x, times)), np.concatenate([x, times], axis=1))
    image = join_times(normal(3, 4, 5, 2).astype(mx.bfloat16), times)
    assert image.shape == (3, 4, 5, 4) and image.dtype == mx.bfloat16
    assert np.allclose(np.array(image[..., 3].astype(mx.float32)), np.array([0.2, 0.4, 0.6])[:, None, None], atol=2e-3)
    for wrong in (None, mx.zeros((3,)), mx.zeros((2, 2))):
        with pytest.raises(UsageError, match=r"\(3, 2\)"):
            join_times(x, wrong)


def test_dropout_follows_its_key():
    layer, x = Dropout(0.3), mx.ones((100, 100))
    once, again, other = (np.array(layer(x, mx.random.key(i))) for i in (0, 0, 1))
    assert (once == again).all() and (once != other).any()
    assert set(np.unique(once)) == {0.0, np.float32(1 / 0.7)}
    assert abs((once == 0).mean() - 0.3) < 0.02
    assert mx.array_equal(layer(x), x).item() and mx.array_equal(layer.eval()(x, mx.random.key(0)), x).item()
    tangent = mx.jvp(lambda y: Dropout(0.3)(y, mx.random.key(0)), [x], [2 * x])[1][0]
    assert np.allclose(np.array(tangent), 2 * once)
    with pytest.raises(UsageError, match="got 1.0"):
        Dropout(1.0)


@pytest.mark.parametrize("channels, groups", [(8, 2), (8, 8), (64, None), (20, None)])
def test_group_norm_against_numpy(channels, groups):
    layer = GroupNorm(channels, groups)
    layer.weight, layer.bias = normal(channels, seed=8), normal(channels, seed=9)
    x = 3 + 2 * normal(2, 3, 4, channels)
    flat = np.array(x, np.float64).reshape(2, 12, layer.groups, -1)
    wanted = (flat - flat.mean((1, 3), keepdims=True)) / np.sqrt(flat.var((1, 3), keepdims=True) + 1e-6)
    wanted = wanted.reshape(x.shape) * np.array(layer.weight) + np.array(layer.bias)
    assert np.abs(np.array(layer(x)) - wanted).max() < 1e-4
    assert layer(x.astype(mx.bfloat16)).dtype == mx.bfloat16
    theirs = nn.GroupNorm(layer.groups, channels, eps=1e-6, pytorch_compatible=True)
    theirs.update({"weight": layer.weight, "bias": layer.bias})
    assert mx.abs(layer(x) - theirs(x)).max().item() < 1e-4


def test_time_embedding_sees_the_time_of_the_state_and_the_length():
    layer = TimeEmbedding(8, 16)
    seen = []
    layer.first = lambda features: seen.append(np.array(features)) or features @ mx.zeros((16, 16))
    layer.first.weight = mx.zeros(1)
    layer(mx.array([[0.2, 0.7]]))
    waves = 10_000.0 ** -(np.arange(4) / 4)
    wanted = np.concatenate([f(value * waves) for value in (0.2, 0.5) for f in (np.cos, np.sin)])
    assert np.allclose(seen[0][0], wanted, atol=1e-6)
    with pytest.raises(UsageError, match="even"):
        TimeEmbedding(7, 16)


def test_class_embedding_has_one_vector_more_for_no_class():
    layer, h = ClassEmbedding(3, 4), mx.zeros((2, 5, 4))
    found = layer(h, mx.array([1, -1]))
    assert mx.array_equal(found[0, 2], layer.weight[1]).item() and mx.array_equal(found[1, 0], layer.weight[3]).item()
    assert mx.array_equal(layer(h, None)[0, 0], layer.weight[3]).item()
    with pytest.raises(UsageError, match=r"\(2,\)"):
        layer(h, mx.array([1]))
    with pytest.raises(UsageError, match="classes=0"):
        Unlabelled()(h, mx.array([1, 2]))
