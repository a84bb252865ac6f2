"""The kernels of column sums as they are launched, their formula's place in gradients, and the bias that uses them."""

import mlx.core as mx
import numpy as np
import pytest

from models import column_sums_cuda, convolution, linear
from models.bias import spread
from models.convolution import Conv2d, ConvTranspose2d
from tests.models.launches import watched


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("rows, columns", [(1, 8), (512, 24), (513, 24), (131_072, 128), (4097, 3072), (600, 264)])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_every_row_and_column_has_its_place_in_one_block(rows, columns, dtype, monkeypatch):
    seen = []
    watched(monkeypatch, lambda *given: seen.append(given))
    assert column_sums_cuda.tall(mx.zeros((rows, columns), dtype)).dtype == dtype
    chunks = rows
    if rows > column_sums_cuda.FEW:
        name, source, (r, c, each, _), grid, group = seen.pop(0)
        lanes = int(source.split("constexpr int W = ")[1].split(";")[0])
        tiles = -(-columns // (8 * lanes))
        chunks = -(-rows // each)
        assert (name, r, c, group[0]) == ("column_sums", rows, columns, 256) and 256 % lanes == 0
        assert grid[0] == 256 * chunks * tiles and (chunks - 1) * each < rows
    ((name, _, sizes, grid, group),) = seen
    assert (name, sizes[:2], group[0]) == ("row_sums", [chunks, columns], 512) and grid[0] // 512 == -(-columns // 32)


def test_parts_have_their_own_types(monkeypatch):
    watched(monkeypatch, lambda *given: None)
    found = column_sums_cuda.short(mx.zeros((3, 32)), [mx.bfloat16, mx.float32])
    assert [(a.shape, a.dtype) for a in found] == [((16,), mx.bfloat16), ((16,), mx.float32)]


@pytest.fixture
def by_kernels(monkeypatch):
    """Kernels that run as the formula; counts them."""
    calls = []
    monkeypatch.setattr(column_sums_cuda, "tall", lambda x: calls.append(x.shape) or x.sum(axis=0))
    for module in (linear, convolution):
        monkeypatch.setattr(module, "available", lambda x: True)
    return calls


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_gradients_of_a_convolutions_bias_in_every_nesting(kind, by_kernels):
    layer = kind(4, 8)
    x, t = normal(2, 5, 5, 4), normal(2, 5, 5, 4, seed=1)
    layer.bias = normal(8, seed=2)

    def losses(call):
        def loss(bias):
            (y,), (slope,) = mx.jvp(lambda x: mx.sin(call(x, bias)), [x], [t])
            return (y * slope).sum()

        return mx.grad(loss)(layer.bias), mx.grad(lambda b: mx.square(mx.grad(loss)(b)).sum())(layer.bias)

    def ours(x, bias):
        layer.bias = bias
        return layer(x)

    def plain(x, bias):
        del layer["bias"]
        y = layer(x) + bias
        layer.bias = bias
        return y

    found, called = losses(ours), len(by_kernels)
    for mine, wanted in zip(found, losses(plain), strict=True):
        np.testing.assert_allclose(np.array(mine), np.array(wanted), rtol=1e-4, atol=1e-4)
    assert called and called == len(by_kernels)  # none in the plain one


def test_a_bias_by_every_rule_against_mlxs(by_kernels):
    y, b, dy, db = normal(3, 4, 8), normal(8, seed=1), normal(3, 4, 8, seed=2), normal(8, seed=3)
    rules = [
        lambda f: mx.jvp(f, [y, b], [dy, db])[1][0],
        lambda f: mx.jvp(lambda y: f(y, b), [y], [dy])[1][0],
        lambda f: mx.jvp(lambda b: f(y, b), [b], [db])[1][0],
        lambda f: mx.vmap(f, in_axes=(0, None))(y, b),
        lambda f: mx.vjp(f, [y, b], [dy])[1][1],
    ]
    for rule in rules:
        np.testing.assert_allclose(np.array(rule(spread)), np.array(rule(mx.add)), rtol=1e-6, atol=1e-5)
    half = mx.vjp(spread, [y.astype(mx.bfloat16), b], [dy])[1]  # a sum in float32, gradients in their own types
    assert [g.dtype for g in half] == [mx.bfloat16, mx.float32]


def test_columns_that_are_not_a_multiple_of_8_go_by_products(by_kernels):
    linear.column_sums(normal(5, 6))
    assert by_kernels == []
    linear.column_sums(normal(2, 5, 8))
    assert by_kernels == [(10, 8)]
