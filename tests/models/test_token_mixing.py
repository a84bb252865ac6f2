"""Products along the tokens and the gate of a SwiGLU: values, derivatives, and what they cost in kernels."""

import mlx.core as mx
import numpy as np
import pytest

from models.elementary import apart, gated
from models.token_mixing import across, from_left
from tests.models.compiled import kernels


def normal(*shape, seed=0, dtype=mx.float32):
    made = mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32)).astype(dtype)
    mx.eval(made)  # its cast would be a kernel
    return made


def plain_gated(gate, up):
    return gate * mx.sigmoid(gate) * up


def close(got, wanted, tolerance=2e-6):
    got, wanted = np.array(got, np.float64), np.array(wanted, np.float64)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


CASES = {
    "gated": (gated, plain_gated, lambda: (3 * normal(4, 9), normal(4, 9, seed=1))),
    "from_left": (from_left, lambda w, x: w @ x, lambda: (normal(4, 6), normal(3, 6, 5, seed=1))),
    "across": (across, lambda w, x: w.T @ x, lambda: (normal(6, 4), normal(3, 6, 5, seed=1))),
}


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("wrap", [mx.compile, lambda f: f], ids=["compiled", "eager"])
def test_values_and_gradients_equal_mlxs(name, wrap):
    ours, theirs, inputs = CASES[name]
    given = inputs()
    out = wrap(ours)(*given)
    close(out, theirs(*given))
    weight = normal(*out.shape, seed=2)
    found, wanted = (
        wrap(mx.grad(lambda a, b, f=f: (weight * f(a, b)).sum(), argnums=(0, 1)))(*given) for f in (ours, theirs)
    )
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        close(a, b)


@pytest.mark.parametrize("name", list(CASES))
def test_vmap_equals_a_loop(name):
    ours, _, inputs = CASES[name]
    a, b = (mx.stack([one, 2 * one]) for one in inputs())
    close(mx.vmap(ours)(a, b), mx.stack([ours(a[i], b[i]) for i in range(2)]))


def test_the_gates_tangent_equals_mlxs():
    given, along = [normal(4, 9), normal(4, 9, seed=1)], [normal(4, 9, seed=2), normal(4, 9, seed=3)]
    close(mx.jvp(gated, given, along)[1][0], mx.jvp(plain_gated, given, along)[1][0])


@pytest.mark.parametrize("function, shape", [(from_left, (2, 3)), (across, (3, 2))])
def test_gradients_over_many_rows_are_summed_in_float32(function, shape):
    """A sum of bf16 numbers one by one stops growing at 256 times each."""
    x = mx.ones((2048, 3, 4), mx.bfloat16)
    gradient = mx.grad(lambda w: function(w, x).astype(mx.float32).sum())(mx.ones(shape, mx.bfloat16))
    assert np.unique(np.array(gradient.astype(mx.float32))).tolist() == [2048 * 4]


def test_bf16_is_rounded_once():
    gate, up = 3 * normal(64, 65, dtype=mx.bfloat16), normal(64, 65, seed=1, dtype=mx.bfloat16)
    wide = [a.astype(mx.float32) for a in (gate, up)]
    np.testing.assert_allclose(gated(gate, up).astype(mx.float32), plain_gated(*wide), rtol=2**-8, atol=1e-30)
    c = normal(64, 65, seed=2)
    found = mx.grad(lambda g, u: (c * gated(g, u)).sum(), argnums=(0, 1))(gate, up)
    cotangent = c.astype(mx.bfloat16).astype(mx.float32)  # as it comes back through the product
    wanted = mx.grad(lambda g, u: (cotangent * plain_gated(g, u)).sum(), argnums=(0, 1))(*wide)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.astype(mx.float32), b, rtol=2**-7, atol=1e-6)


def test_the_gate_is_one_kernel_and_its_gradients_are_two():
    """An operation shared by two of them would be a kernel more, and an array of its result."""
    w, x = normal(3, 6, 6, dtype=mx.bfloat16), normal(4, 6, dtype=mx.bfloat16)

    def value(w):
        return gated(x @ w[0], x @ w[1]) @ w[2]

    forward = kernels(lambda w: [value(w)], w)
    assert len(forward) == 1 and "Sigmoid" in forward[0]
    both = kernels(lambda w: mx.vjp(value, [w], [x])[1], w)
    assert sum("Sigmoid" in name for name in both) == 3 and "AsType" not in both and "Sigmoid" not in both


def test_apart_keeps_every_number():
    x = mx.array([0.0, -0.0, 1e-38, -3.5, 1e38, np.inf, np.nan])
    for swapped in (False, True):
        np.testing.assert_array_equal(np.array(apart(x, swapped)).view(np.int32)[:6], np.array(x).view(np.int32)[:6])
        assert np.isnan(apart(x, swapped)[6].item())
