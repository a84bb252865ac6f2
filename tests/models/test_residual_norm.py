"""Residual and RMS norm: by hand, the kernels' formulas in float64, nested derivatives, kernels' arguments."""

import struct

import mlx.core as mx
import numpy as np
import pytest

from models import residual_norm as module
from models import residual_norm_cuda
from models.residual_norm import by_tokens, expression, fused, residual_norm
from runtime.errors import UsageError
from tests.models import launches
from tests.models import residual_norm_formulas as formulas
from tests.models.compiled import kernels

EPS = 1e-2  # large, so that a test sees where it goes
AXES = pytest.mark.parametrize("axis", [1, 2])


def normal(*shape, seed=0, dtype=mx.float32):
    made = mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32)).astype(dtype)
    mx.eval(made)  # its cast would be a kernel
    return made


def close(a, b, tolerance=1e-5):
    assert a.shape == b.shape and np.abs(np.array(a, np.float64) - np.array(b, np.float64)).max() < tolerance


def wanted(x, branch, axis):
    h = np.array(x, np.float64) + np.array(branch, np.float64)
    return h / np.sqrt((h * h).mean(axis=axis, keepdims=True) + EPS)


@pytest.fixture
def by_formulas(monkeypatch):
    monkeypatch.setattr(module, "MODE", "fused")
    monkeypatch.setattr(module, "KERNELS", formulas)


@AXES
@pytest.mark.parametrize("wrap", [mx.compile, lambda f: f], ids=["compiled", "eager"])
def test_by_hand(axis, wrap):
    x, branch = normal(3, 7, 6), normal(3, 7, 6, seed=1)
    close(wrap(lambda a, b: residual_norm(a, b, axis, EPS))(x, branch), wanted(x, branch, axis))


@AXES
def test_fused_by_hand(axis, by_formulas):
    x, branch = normal(3, 7, 6), normal(3, 7, 6, seed=1)
    close(residual_norm(x, branch, axis, EPS), wanted(x, branch, axis))
    x, branch = x.astype(mx.bfloat16), branch.astype(mx.bfloat16)
    found = residual_norm(x, branch, axis, EPS)
    assert found.dtype == mx.bfloat16
    np.testing.assert_allclose(  # rounded once, at the end
        found.astype(mx.float32), wanted(x.astype(mx.float32), branch.astype(mx.float32), axis), rtol=2**-8, atol=1e-30
    )


@AXES
def test_formulas_equal_autodiff_in_float64(axis):
    rng = np.random.default_rng(0)
    with mx.stream(mx.cpu):
        x, branch, dy = (mx.array(rng.normal(size=(3, 5, 8)), mx.float64) for _ in range(3))
        (y, f), found = formulas.forward(x, branch, axis, EPS), expression(axis, EPS)
        df = mx.array(rng.normal(size=f.shape), mx.float64)
        for a, b in zip((y, f), found(x, branch), strict=True):
            close(a, b, 1e-12)
        for right in mx.vjp(found, [x, branch], [dy, df])[1]:
            close(formulas.backward(dy, df, y, f, axis), right, 1e-12)
            close(module.slope(dy, df, y, f, axis), right, 1e-12)


@pytest.mark.parametrize(
    "make, axis",
    [(lambda: fused(formulas, 1, EPS), 1), (lambda: fused(formulas, 2, EPS), 2), (lambda: by_tokens(EPS), 1)],
)
def test_every_nesting_of_derivatives_equals_autodiff(make, axis):
    primals, t, g = [normal(2, 3, 8), normal(2, 3, 8, seed=1)], normal(2, 3, 8, seed=2), normal(2, 3, 8, seed=3)
    ours = make()

    def found(f):
        def value(x, branch):
            y, factor = f(x, branch)
            return (g * mx.square(y)).sum() + mx.square(factor).sum()

        def length(x, branch):  # its gradient goes through the gradient
            return sum(mx.square(v * g).sum() for v in mx.grad(value, argnums=(0, 1))(x, branch))

        yield from mx.grad(value, argnums=(0, 1))(*primals)
        yield from mx.grad(length, argnums=(0, 1))(*primals)
        stacked = [mx.stack([p, 2 * p]) for p in primals]
        yield mx.vmap(lambda *p: f(*p)[0])(*stacked)
        if f is not by_tokens(EPS):
            yield from mx.jvp(lambda *p: f(*p), primals, [t, primals[0]])[1]
            yield mx.jvp(mx.grad(value), primals, [t, primals[0]])[1][0]

    for mine, right in zip(found(ours), found(expression(axis, EPS)), strict=False):
        assert mx.abs(right).max().item() > 0.1  # MLX gives zeros where a rule is missing
        close(mine, right, 1e-4 * mx.abs(right).max().item())


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float32])
def test_operations_along_the_tokens_are_two_passes_and_so_is_their_gradient(dtype):
    x, branch, c = (normal(3, 8, 4, seed=seed, dtype=dtype) for seed in range(3))
    w = normal(4, 4, dtype=dtype)
    forward = kernels(lambda x: [residual_norm(x, branch, 1, EPS) @ w], x)
    assert sorted("Square" in name for name in forward) == [False, False, True]  # and the factor of the columns
    assert not {"AsType", "Square", "Multiply", "Add"} & set(forward)
    both = kernels(lambda x: mx.vjp(lambda x: residual_norm(x, branch, 1, EPS) @ w, [x], [c])[1], x)
    assert not {"AsType", "Square", "Multiply"} & set(both) and len(both) == len(forward) + 2


def test_a_mode_that_is_unknown_or_impossible_is_a_sentence(monkeypatch):
    x = normal(1, 2, 12)  # 12 features fit nowhere
    monkeypatch.setattr(module, "MODE", "fast")
    with pytest.raises(UsageError, match="auto, plain or fused, got 'fast'"):
        residual_norm(x, x, 1, EPS)
    monkeypatch.setattr(module, "MODE", "fused")
    with pytest.raises(UsageError, match=r"multiple of 8 features, and .* at most 128 tokens; got .*\(1, 2, 12\)"):
        residual_norm(x, x, 1, EPS)
    takes = residual_norm_cuda.takes
    assert [takes(128, 96, 1), takes(129, 96, 1), takes(129, 96, 2), takes(4, 12, 2)] == [True, False, True, False]


@pytest.mark.parametrize("tokens, width, chunks, blocks", [
    (97, 512, (4, 2), (16, 25)), (5, 8, (1, 1), (2, 2)), (32, 64, (1, 1), (2, 8)), (33, 72, (2, 1), (4, 9)),
    (128, 264, (4, 2), (10, 32)),
])  # fmt: skip
def test_own_kernels_are_given_what_their_signatures_name(tokens, width, chunks, blocks, monkeypatch):
    seen = []

    def look(name, text, scalars, grid, threadgroup):
        axis = 1 if "tokens" in name else 2
        assert f"constexpr int K = {chunks[axis - 1]};" in text and threadgroup == (256, 1, 1)
        eps = struct.unpack("<i", struct.pack("<f", EPS))[0] if "forward" in name else 0
        assert scalars == [*((tokens, width) if axis == 1 else (2 * tokens, width)), eps]
        assert grid == (256 * blocks[axis - 1], 1, 1) and "/*" not in text
        seen.append(name)

    launches.watched(monkeypatch, look)
    x = mx.zeros((2, tokens, width), mx.bfloat16)
    for axis in (1, 2):
        y, f = residual_norm_cuda.forward(x, x, axis, EPS)
        assert f.dtype == mx.float32 and f.shape == ((2, 1, width) if axis == 1 else (2, tokens, 1))
        assert residual_norm_cuda.backward(y, f, y, f, axis).dtype == mx.bfloat16
    assert seen == [f"residual_norm_{a}_{n}" for a in ("tokens", "features") for n in ("forward", "backward")]
