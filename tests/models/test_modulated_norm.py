"""Modulated layer norm: plain by hand, the kernels' formulas in float64, and every nesting of their derivatives."""

import struct

import mlx.core as mx
import numpy as np
import pytest

from models import layer_norm_cuda, modulated_norm
from models.dit import DiT
from models.modulated_norm import expression, fused, modulated
from runtime.errors import UsageError
from tests.models import launches
from tests.models import layer_norm_formulas as formulas


def bits(number):
    return struct.unpack("<i", struct.pack("<f", number))[0]


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def close(a, b, tolerance=1e-5):
    assert a.shape == b.shape and np.abs(np.array(a, np.float64) - np.array(b, np.float64)).max() < tolerance


@pytest.fixture
def by_formulas(monkeypatch):
    monkeypatch.setattr(modulated_norm, "MODE", "fused")
    monkeypatch.setattr(modulated_norm, "KERNELS", formulas)


def wanted(x, shift, scale):
    x, shift, scale = (np.array(v, np.float64) for v in (x, shift, scale))
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return y * (1 + scale) + shift


def arguments():
    return 3 + 2 * normal(2, 5, 24), normal(2, 1, 24, seed=1), normal(2, 1, 24, seed=2)


def test_plain_by_hand():
    close(modulated(*arguments()), wanted(*arguments()))


def test_fused_by_hand(by_formulas):
    close(modulated(*arguments()), wanted(*arguments()))
    x, shift, scale = (v.astype(mx.bfloat16) for v in arguments())
    found = modulated(x, shift, scale)
    assert found.dtype == mx.bfloat16
    close(found.astype(mx.float32), wanted(*(v.astype(mx.float32) for v in (x, shift, scale))), 0.03)


def test_formulas_equal_autodiff_in_float64():
    rng = np.random.default_rng(0)
    shapes = [(3, 5, 24), (3, 24), (3, 24)]
    with mx.stream(mx.cpu):
        primals, tangents = ([mx.array(rng.normal(size=s), mx.float64) for s in shapes] for _ in range(2))
        g = mx.array(rng.normal(size=shapes[0]), mx.float64)
        plain = expression(1e-6)
        (y,), gradients = mx.vjp(plain, primals, [g])
        close(formulas.forward(*primals, 1e-6)[0], y, 1e-12)
        close(formulas.tangent(*primals, *tangents, 1e-6)[0], mx.jvp(plain, primals, tangents)[1][0], 1e-12)
        for by_hand, right in zip(formulas.backward(*primals, g, 1e-6), gradients, strict=True):
            close(by_hand, right, 1e-12)


def test_every_nesting_of_derivatives_equals_autodiff():
    primals = [1 + normal(2, 3, 16), normal(2, 16, seed=1), normal(2, 16, seed=2)]
    t, g, every = normal(2, 3, 16, seed=3), normal(2, 3, 16, seed=4), (0, 1, 2)

    def found(f):
        def value(x, a, s):
            return (g * mx.square(f(x, a, s)[0])).sum()

        def slope(x, a, s):  # its gradient goes through the tangent
            return (g * mx.square(mx.jvp(lambda *p: mx.square(f(p[0], a, p[1])[0]), [x, s], [t, a])[1][0])).sum()

        def length(x, a, s):  # its gradient goes through the gradient
            return sum(mx.square(v).sum() for v in mx.grad(value, argnums=every)(x, a, s))

        yield from mx.grad(value, argnums=every)(*primals)
        yield from mx.grad(slope, argnums=every)(*primals)
        yield from mx.grad(length, argnums=every)(*primals)
        yield mx.jvp(mx.grad(value), primals, [t, primals[2], primals[1]])[1][0]
        stacked = [mx.stack([p, 2 * p]) for p in primals]
        yield mx.vmap(lambda *p: f(*p)[0])(*stacked)
        yield mx.vmap(mx.grad(value))(*stacked)

    for ours, right in zip(found(fused(formulas, 1e-6)), found(expression(1e-6)), strict=True):
        assert mx.abs(right).max().item() > 0.1  # MLX gives zeros where a rule is missing
        close(ours, right, 1e-4 * mx.abs(right).max().item())


def test_a_transformer_is_the_same_by_formulas(by_formulas, monkeypatch):
    model = DiT([4, 4, 2], hidden=16, depth=1, heads=2)
    model.update({"modulate": {"weight": normal(32, 16)}, "leave": {"weight": normal(8, 16, seed=1)}})
    x, times = normal(2, 4, 4, 2), mx.array([[0.1, 0.4], [0.3, 0.9]])

    def slope():
        return mx.jvp(lambda x, times: model(x, times), [x, times], [x, mx.ones_like(times)])

    ours = slope()
    monkeypatch.setattr(modulated_norm, "MODE", "plain")
    for found, right in zip(ours, slope(), strict=True):
        assert mx.abs(right[0]).max().item() > 0.1
        close(found[0], right[0], 1e-4)


def test_a_mode_that_is_unknown_or_impossible_is_a_sentence(monkeypatch):
    x, row = normal(1, 2, 12), normal(1, 1, 12)  # 12 features fit nowhere
    monkeypatch.setattr(modulated_norm, "MODE", "fast")
    with pytest.raises(UsageError, match="auto, plain or fused, got 'fast'"):
        modulated(x, row, row)
    monkeypatch.setattr(modulated_norm, "MODE", "fused")
    with pytest.raises(UsageError, match="multiple of 8 features up.*got .*12 features"):
        modulated(x, row, row)
    assert [layer_norm_cuda.takes(width) for width in (384, 1152, 1536, 1540, 1544)] == [True, True, True, False, False]


@pytest.mark.parametrize("width, chunks", [(8, 1), (256, 1), (264, 2), (1152, 5)])
def test_own_kernels_are_given_what_their_signatures_name(width, chunks, monkeypatch):
    seen = []

    def look(name, text, scalars, grid, threadgroup):
        assert f"constexpr int K = {chunks};" in text and scalars == [2 * 70, 70, width, 32, bits(1e-6)]
        assert grid[0] % threadgroup[0] == 0 and threadgroup == (256, 1, 1)
        seen.append((name, grid[0] // threadgroup[0]))

    launches.watched(monkeypatch, look)
    x, row = mx.zeros((2, 70, width), mx.bfloat16), mx.zeros((2, width))
    layer_norm_cuda.forward(x, row, row, 1e-6)
    layer_norm_cuda.tangent(x, row, row, x, row, row, 1e-6)
    dx, da, ds = layer_norm_cuda.backward(x, row, row, x, 1e-6)
    assert dx.dtype == mx.bfloat16 and da.shape == ds.shape == (2, width)
    # 8 tokens a block, 32 of one image in the gradient's
    assert seen == [("layer_norm_forward", 18), ("layer_norm_tangent", 18), ("layer_norm_backward", 6)]
