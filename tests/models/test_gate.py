"""The gate of a SwiGLU by a kernel: its formulas in float64, the SwiGLU around it, nested derivatives, arguments."""

import mlx.core as mx
import numpy as np
import pytest

from models import gate, gate_cuda
from models.gate import fused, is_fused, joined
from models.recursive import SwiGLU
from runtime.errors import UsageError
from tests.models import gate_formulas as formulas
from tests.models import launches


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def close(a, b, tolerance=1e-5):
    assert a.shape == b.shape
    a, b = np.array(a, np.float64), np.array(b, np.float64)
    assert np.abs(b).max() > 0.1  # MLX gives zeros where a rule is missing
    assert np.abs(a - b).max() < tolerance * np.abs(b).max()


def plain(x):
    return [x[:, 0] * mx.sigmoid(x[:, 0]) * x[:, 1]]


@pytest.fixture
def by_formulas(monkeypatch):
    monkeypatch.setattr(gate, "MODE", "fused")
    monkeypatch.setattr(gate, "KERNELS", formulas)


def test_formulas_equal_autodiff_in_float64():
    rng = np.random.default_rng(0)
    with mx.stream(mx.cpu):
        x, dy = mx.array(3 * rng.normal(size=(3, 2, 5)), mx.float64), mx.array(rng.normal(size=(3, 5)), mx.float64)
        close(formulas.forward(x), plain(x)[0], 1e-8)  # MLX's exp of float64 has 9 digits
        close(formulas.backward(x, dy), mx.vjp(plain, [x], [dy])[1][0], 1e-8)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_halves_are_joined_along_any_axis(axis, by_formulas):
    x = normal(4, 6, 8)
    g, u = mx.split(x, 2, axis=axis)
    close(joined(x, axis), g * mx.sigmoid(g) * u)


def test_a_swiglu_is_the_same_by_one_product(monkeypatch):
    mx.random.seed(0)
    mixer, x, c = SwiGLU(6, 4.0), normal(2, 6, 6), normal(2, 6, 6, seed=1)

    def found():
        def value(weights, x):
            mixer.update(weights)
            return (c * (mixer(x) + 2 * mixer.along_tokens(x))).sum()

        weights = mixer.parameters()
        by_weights, by_x = mx.grad(value, argnums=(0, 1))(weights, x)
        mixer.update(weights)
        return {"along": mixer.along_tokens(x), "across": mixer(x), "x": by_x, **by_weights}

    right = found()
    monkeypatch.setattr(gate, "MODE", "fused")
    monkeypatch.setattr(gate, "KERNELS", formulas)
    calls = []
    monkeypatch.setattr(formulas, "backward", lambda *a, f=formulas.backward: calls.append(a[0].shape) or f(*a))
    for name, mine in found().items():
        close(mine, right[name])
    assert sorted(calls) == [(2, 2, 256 * 6), (2 * 6, 2, 256)]  # both sides of it ran


def test_every_nesting_of_derivatives_equals_autodiff():
    x, t, g = normal(2, 2, 3), normal(2, 2, 3, seed=1), normal(2, 3, seed=2)

    def found(f):
        def value(x):
            return (g * mx.square(f(x)[0])).sum()

        yield mx.grad(value)(x)
        yield mx.grad(lambda x: mx.square(mx.grad(value)(x)).sum())(x)
        yield mx.grad(lambda x: mx.square(mx.jvp(f, [x], [t])[1][0]).sum())(x)
        yield mx.jvp(mx.grad(value), [x], [t])[1][0]
        yield mx.vmap(lambda x: f(x)[0], in_axes=1)(mx.stack([x, 2 * x], axis=1))
        yield mx.vmap(mx.grad(value))(mx.stack([x, 2 * x]))

    for ours, right in zip(found(fused(formulas)), found(plain), strict=True):
        close(ours, right, 1e-4)


def test_a_mode_that_is_unknown_or_impossible_is_a_sentence(monkeypatch):
    monkeypatch.setattr(gate, "MODE", "fast")
    with pytest.raises(UsageError, match="auto, plain or fused, got 'fast'"):
        is_fused(mx.zeros((1, 2)), 8)
    monkeypatch.setattr(gate, "MODE", "fused")
    with pytest.raises(UsageError, match="multiple of 8 inner features; got .*float32 and 12"):
        is_fused(mx.zeros((1, 2)), 12)
    takes = gate_cuda.takes
    assert [takes(3, 8), takes(3, 12), takes(1 << 20, 1 << 14), takes((1 << 20) - 1, 1 << 14)] == [
        True, False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("rows, width, blocks", [(3, 8, 1), (2, 1024, 1), (2, 1032, 2), (97, 1536, 73)])
def test_own_kernels_are_given_what_their_signatures_name(rows, width, blocks, monkeypatch):
    seen = []

    def look(name, text, scalars, grid, threadgroup):
        assert scalars == [width // 8, rows * width // 8, 0]
        assert grid == (256 * blocks, 1, 1) and threadgroup == (256, 1, 1)
        seen.append(name)

    launches.watched(monkeypatch, look)
    x = mx.zeros((rows, 2, width), mx.bfloat16)
    y = gate_cuda.forward(x)
    assert y.shape == (rows, width) and gate_cuda.backward(x, y).shape == x.shape
    assert seen == ["gate_forward", "gate_backward"]
