"""Functions with derivatives written out, against float64 formulas, MLX's own derivatives and each other."""

import math
import time

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from models.elementary import erf_gelu, gelu, layer_norm, selu, silu, tanh
from runtime import jit


def standard(x):
    """Layer norm by MLX, differentiated by MLX."""
    return mx.fast.layer_norm(x, None, None, 1e-6)


def exact_selu(x):
    """SELU by MLX with all digits of its constants; nn.selu has six."""
    return 1.0507009873554805 * nn.elu(x, 1.6732632423543772)


ACTIVATIONS = [(silu, nn.silu), (gelu, nn.gelu_approx), (erf_gelu, nn.gelu), (selu, exact_selu), (tanh, mx.tanh)]
PAIRS = pytest.mark.parametrize("ours, theirs", [*ACTIVATIONS, (layer_norm, standard)])


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def close(a, b, tolerance=2e-6):
    assert a.shape == b.shape and np.abs(np.array(a, np.float64) - np.array(b, np.float64)).max() < tolerance


def test_values_in_float64():
    x = np.array(normal(4, 9), np.float64)
    close(silu(mx.array(x.astype(np.float32))), x / (1 + np.exp(-x)))
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    close(gelu(mx.array(x.astype(np.float32))), 0.5 * x * (1 + np.tanh(inner)))
    for function, wanted in ((erf_gelu, [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.flat]),
                             (tanh, np.tanh(x)),
                             (selu, 1.05070098735 * np.where(x > 0, x, 1.67326324235 * np.expm1(x)))):  # fmt: skip
        close(function(mx.array(x.astype(np.float32))), np.reshape(wanted, x.shape))
    centred = x - x.mean(axis=-1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    close(layer_norm(mx.array(x.astype(np.float32))), wanted)


@PAIRS
@pytest.mark.parametrize("compiled", [True, False])
def test_jvp_gradient_and_gradient_of_jvp_equal_mlxs(ours, theirs, compiled):
    x, dx, weight = normal(4, 9), normal(4, 9, seed=1), normal(4, 9, seed=2)
    wrap = mx.compile if compiled else lambda f: f

    def slope(function):
        return wrap(lambda x: mx.jvp(function, [x], [dx])[1][0])(x)

    def gradient(function):
        return wrap(mx.grad(lambda x: (weight * function(x)).sum()))(x)

    def nested(function):
        def loss(x):
            (y,), (dy,) = mx.jvp(function, [x], [dx])
            return (weight * y * dy).sum()

        return wrap(mx.grad(loss))(x)

    mx.disable_compile()  # MLX's own compiled activations have no gradient of their jvp
    wanted = [f(theirs) for f in (slope, gradient, nested)]
    mx.eval(wanted)
    mx.enable_compile()
    for f, value in zip((slope, gradient, nested), wanted, strict=True):
        close(f(ours), value, 1e-5)


@PAIRS
def test_jvp_against_finite_differences(ours, theirs):
    x, dx, h = normal(3, 9), normal(3, 9, seed=1), 1e-2
    close(mx.jvp(ours, [x], [dx])[1][0], (ours(x + h * dx) - ours(x - h * dx)) / (2 * h), 2e-3)


@PAIRS
def test_vmap_keeps_values_and_gradients(ours, theirs):
    x, weight = normal(4, 9), normal(4, 9, seed=2)
    close(mx.vmap(ours)(x), theirs(x))
    close(mx.vmap(ours, in_axes=1, out_axes=0)(x.T), theirs(x))
    found, wanted = (mx.vmap(mx.grad(lambda x, w, f=f: (w * f(x)).sum()))(x, weight) for f in (ours, theirs))
    close(found, wanted)
    assert np.abs(np.array(found)).max() > 0.1


@PAIRS
def test_bfloat16_stays(ours, theirs):
    x = normal(4, 9).astype(mx.bfloat16)
    out, slope = mx.jvp(ours, [x], [x])
    assert out[0].dtype == slope[0].dtype == mx.bfloat16
    close(out[0].astype(mx.float32), theirs(x.astype(mx.float32)), 0.03)


def test_silu_far_from_zero():
    x = mx.array([-3e38, -200, -100, -88.5, -41, -39, -20, 20, 39, 88.5, 200, 3e38])
    wide = np.clip(np.array(x, np.float64), -700, 700)
    s = 1 / (1 + np.exp(-wide))
    first, second = s * (1 + wide * (1 - s)), s * (1 - s) * (2 + wide * (1 - 2 * s))
    close(mx.grad(lambda x: silu(x).sum())(x), first, 1e-6)
    close(mx.grad(lambda x: mx.jvp(silu, [x], [mx.ones_like(x)])[1][0].sum())(x), second, 1e-6)


@pytest.mark.skipif(not jit.status.startswith(jit.FLAGS), reason="kernels are not compiled by our flags here")
@pytest.mark.parametrize("function", [silu, gelu, erf_gelu, selu, tanh])
def test_compiled_activations_and_their_gradients_leave_nothing_to_mlxs_slow_loop(function):
    x = mx.random.normal((2**19,))
    both = mx.compile(lambda x: mx.vjp(function, [x], [x]))
    mx.eval(both(x))

    def least(function):
        times = []
        for _ in range(5):
            begin = time.process_time()
            mx.eval(function(x))
            times.append(time.process_time() - begin)
        return min(times)

    assert least(both) < least(mx.sigmoid) / 3
