"""The linear layer against nn.Linear, float64 sums and finite differences, in every transformation."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from models.linear import Linear, affine, column_sums, plain


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def pair(bias=True):
    """The same weights in our layer and MLX's."""
    ours, theirs = Linear(5, 3, bias=bias), nn.Linear(5, 3, bias=bias)
    ours.weight = theirs.weight = normal(3, 5, seed=1)
    if bias:
        ours.bias = theirs.bias = normal(3, seed=2)
    return ours, theirs


def close(a, b, tolerance=1e-5):
    assert a.shape == b.shape and np.abs(np.array(a, np.float64) - np.array(b, np.float64)).max() < tolerance


@pytest.mark.parametrize("shape", [(1, 4), (7, 4), (6, 64, 4), (2, 8, 8, 4), (3, 5, 7, 4)])
def test_column_sums_against_float64(shape):
    x = normal(*shape)
    close(column_sums(x), np.array(x, np.float64).reshape(-1, 4).sum(axis=0), 1e-4)
    coarse = column_sums(x.astype(mx.bfloat16))
    assert coarse.dtype == mx.bfloat16
    close(coarse.astype(mx.float32), np.array(x, np.float64).reshape(-1, 4).sum(axis=0), 0.05 * np.sqrt(x.size / 4))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_forward_gradients_and_jvp_equal_mlxs(bias, compiled):
    ours, theirs = pair(bias)
    x, dx = normal(2, 6, 5, seed=3), normal(2, 6, 5, seed=4)

    def gradients(layer):
        run = nn.value_and_grad(layer, lambda m, x: mx.sin(m(x)).sum())
        return (
            (mx.compile(run) if compiled else run)(layer, x) if not compiled else mx.compile(lambda x: run(layer, x))(x)
        )

    (a, da), (b, db) = gradients(ours), gradients(theirs)
    close(a, b, 1e-4)
    assert da.keys() == db.keys()
    for name in da:
        close(da[name], db[name], 1e-4)
    for layer_out in zip(mx.jvp(ours, [x], [dx]), mx.jvp(theirs, [x], [dx]), strict=True):
        close(layer_out[0][0], layer_out[1][0])


def test_gradient_through_a_jvp_equals_mlxs():
    x, dx = normal(4, 5, seed=3), normal(4, 5, seed=4)

    def loss(layer, weights):
        layer.update(weights)
        (u,), (slope,) = mx.jvp(lambda x: mx.sin(layer(x)), [x], [dx])
        return (u * slope).sum()

    ours, theirs = pair()
    found, wanted = (mx.grad(lambda w, m=m: loss(m, w))(dict(m.trainable_parameters())) for m in (ours, theirs))
    for name in wanted:
        close(found[name], wanted[name], 1e-4)


def test_jvp_in_every_argument_against_finite_differences():

    primals, tangents = (
        [normal(3, 5), normal(4, 5, seed=1), normal(4, seed=2)],
        [normal(3, 5, seed=5), normal(4, 5), normal(4)],
    )
    _, (slope,) = mx.jvp(affine, primals, tangents)
    h = 1e-2
    ahead, behind = ([p + s * h * t for p, t in zip(primals, tangents, strict=True)] for s in (1, -1))
    close(slope, (plain(*ahead) - plain(*behind)) / (2 * h), 1e-3)
    for i in range(3):
        alone = mx.jvp(lambda a, i=i: affine(*primals[:i], a, *primals[i + 1 :]), [primals[i]], [tangents[i]])[1][0]
        moved = [p if j != i else p + h * tangents[i] for j, p in enumerate(primals)]
        back = [p if j != i else p - h * tangents[i] for j, p in enumerate(primals)]
        close(alone, (plain(*moved) - plain(*back)) / (2 * h), 1e-3)


def test_gradients_under_vmap_are_not_lost():
    ours, theirs = pair()
    x = normal(6, 5)
    found, wanted = (mx.vmap(mx.grad(lambda row, m=m: mx.sin(m(row)).sum()))(x) for m in (ours, theirs))
    close(found, wanted)
    assert np.abs(np.array(found)).max() > 0.1


def test_bfloat16():
    ours, theirs = pair()
    for layer in (ours, theirs):
        layer.set_dtype(mx.bfloat16)
    x = normal(64, 5).astype(mx.bfloat16)
    found, wanted = (nn.value_and_grad(m, lambda m, x: m(x).astype(mx.float32).sum())(m, x) for m in (ours, theirs))
    close(found[0], wanted[0], 1)
    assert found[1]["bias"].dtype == mx.bfloat16 and found[1]["bias"].tolist() == [64.0] * 3
