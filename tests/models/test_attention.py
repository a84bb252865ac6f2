"""Attention with a jvp of its own: against float64 formulas, finite differences, MLX's own, in models."""

from itertools import product

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from models import attention as module
from models.attention import attention, attention_weights, by_operations, fused
from models.gpt import GPT
from models.transformer import MultiHeadAttention
from models.vit import ViT
from tests.models.test_models import directional, squared_tangent

SCALE = 0.3
SHAPES = [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)]  # q, k, v


def draw(seed, dtype=mx.float32):
    rng = np.random.default_rng(seed)
    return [mx.array(rng.normal(size=shape).astype(np.float32)).astype(dtype) for shape in SHAPES]


def reference(primals, tangents, shift=False):
    """The value and its directional derivative in float64; a tangent of None stands still."""
    q, k, v = (np.array(a, np.float64) for a in primals)
    dq, dk, dv = (
        np.zeros(p.shape) if t is None else np.array(t, np.float64) for p, t in zip(primals, tangents, strict=True)
    )
    scores = SCALE * q @ k.swapaxes(-1, -2)
    p = np.exp(scores - (scores.max(-1, keepdims=True) if shift else 0))
    p /= p.sum(-1, keepdims=True)
    ds = SCALE * (dq @ k.swapaxes(-1, -2) + q @ dk.swapaxes(-1, -2))
    return p @ v, p * (ds - (p * ds).sum(-1, keepdims=True)) @ v + p @ dv


def close(found, wanted, tolerance=2e-6):
    wanted = np.array(wanted, np.float64)
    assert tuple(found.shape) == wanted.shape
    assert np.abs(np.array(found.astype(mx.float32)) - wanted).max() < tolerance * (1 + np.abs(wanted).max())


def written_out(q, k, v):
    return by_operations(q, k, v, SCALE, None)


WAYS = pytest.mark.parametrize("way", [fused(SCALE), written_out], ids=["fused", "operations"])


@WAYS
@pytest.mark.parametrize("moving", [m for m in product([True, False], repeat=3) if any(m)], ids=str)
def test_value_and_jvp_in_float64(moving, way):
    primals, tangents = draw(0), [t if m else None for t, m in zip(draw(1), moving, strict=True)]
    places = [i for i, m in enumerate(moving) if m]

    def of_moving(*some):
        arrays = list(primals)
        for place, value in zip(places, some, strict=True):
            arrays[place] = value
        return way(*arrays)

    out, tangent = mx.jvp(of_moving, [primals[i] for i in places], [t for t in tangents if t is not None])
    value, slope = reference(primals, tangents)
    close(out[0], value)
    close(tangent[0], slope)


def value(f):
    return lambda q, k, v: mx.sin(f(q, k, v)).sum()


def slope(f):
    """A scalar of the jvp alone."""

    def call(q, k, v):
        tangents = draw(1, q.dtype)
        return mx.jvp(f, [q, k, v], tangents)[1][0].square().sum()

    return call


@WAYS
@pytest.mark.parametrize("scalar", [value, slope])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_equal_those_of_mlx_and_finite_differences(scalar, compiled, way):
    primals, along, step = draw(0), draw(2), 1e-2
    found = mx.grad(scalar(way), argnums=(0, 1, 2))
    theirs = mx.grad(scalar(lambda *a: mx.fast.scaled_dot_product_attention(*a, scale=SCALE)), argnums=(0, 1, 2))
    gradients = (mx.compile(found) if compiled else found)(*primals)
    for one, other in zip(gradients, theirs(*primals), strict=True):
        close(one, other, 1e-5)
    near = [scalar(way)(*(p + i * step * d for p, d in zip(primals, along, strict=True))) for i in (-2, -1, 1, 2)]
    difference = (near[0] - 8 * near[1] + 8 * near[2] - near[3]).item() / (12 * step)
    directional = sum((g * d).sum().item() for g, d in zip(gradients, along, strict=True))
    assert abs(directional - difference) < 2e-3 * (1 + abs(difference))


# compiling the kernels of the second takes ten seconds on a machine that has not done it before
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_bfloat16_under_a_gradient_of_the_jvp(compiled):
    gradient = mx.grad(slope(fused(SCALE)), argnums=(0, 1, 2))
    gradient = mx.compile(gradient) if compiled else gradient
    wide, narrow = gradient(*draw(0)), gradient(*draw(0, mx.bfloat16))
    for one, other in zip(narrow, wide, strict=True):
        assert one.dtype == mx.bfloat16
        close(one, other, 0.05)


@pytest.mark.parametrize("axes", [(0, 0, 0), (1, None, -1), (None, 0, None)], ids=str)
def test_vmap_and_its_derivatives_equal_a_loop(axes):
    primals, tangents = (
        [v if a is None else mx.stack([v, v - 1, 2 * v], a) for v, a in zip(draw(s), axes, strict=True)] for s in (0, 1)
    )

    def loop(*arrays):
        rows = [[v if a is None else mx.take(v, i, a) for v, a in zip(arrays, axes, strict=True)] for i in range(3)]
        return mx.stack([fused(SCALE)(*row) for row in rows])

    mapped = mx.vmap(fused(SCALE), in_axes=axes)
    close(mapped(*primals), loop(*primals))
    close(mx.jvp(mapped, primals, tangents)[1][0], mx.jvp(loop, primals, tangents)[1][0], 1e-5)
    for one, other in zip(*(mx.grad(value(f), argnums=(0, 1, 2))(*primals) for f in (mapped, loop)), strict=True):
        close(one, other, 1e-5)


def test_the_mode_chooses(monkeypatch):
    primals, called = draw(0), []
    monkeypatch.setattr(module, "fused", lambda scale: called.append(scale) or fused(scale))
    outs = []
    for mode in ("auto", "plain", "fused"):
        monkeypatch.setattr(module, "mode", mode)
        outs.append(attention(*primals, scale=SCALE))
    assert called == [SCALE]
    for out in outs:
        close(out, reference(primals, [None] * 3)[0])


@pytest.mark.parametrize("name", ["unet", "dit_s", "imf_dit", "song_unet"])
def test_models_are_the_same_in_all_modes(name, monkeypatch):
    model, point, direction = directional(name)
    weights, found = model.parameters(), {}
    for mode in ("plain", "fused", "auto"):
        monkeypatch.setattr(module, "mode", mode)
        tangent = mx.jvp(model, point, direction)[1][0]
        found[mode] = [
            tangent,
            *(g for _, g in tree_flatten(mx.grad(squared_tangent(model, direction))(weights, *point))),
        ]
        model.update(weights)
    for one, other, third in zip(found["fused"], found["plain"], found["auto"], strict=True):
        close(one, other, 1e-4)
        close(third, other, 1e-4)


def test_a_mask_hides_tokens_and_large_scores_stay_finite():
    (q, k, v), mask = draw(0), mx.array([[True] * 3 + [False] * 4] * 5)
    found = by_operations(100 * q, 100 * k, v, SCALE, mask)
    close(found, reference((100 * q, 100 * k[:, :, :3], v[:, :, :3]), [None] * 3, shift=True)[0], 1e-5)
    close(found, mx.fast.scaled_dot_product_attention(100 * q, 100 * k, v, scale=SCALE, mask=mask), 1e-5)


def test_recorded_weights_are_the_softmax_and_the_result_stays():
    mx.random.seed(0)
    model = MultiHeadAttention(8, 2)
    x = mx.random.normal((3, 5, 8))
    causal = mx.tri(5, dtype=mx.bool_)
    for mask in (None, causal):
        expected, _ = model(x, mask=mask)
        with attention_weights() as outer, attention_weights() as found:
            got, _ = model(x, mask=mask)
        assert (got == expected).all().item() and len(found) == len(outer) == 1
        projected = (np.array(layer(x)) for layer in (model.q, model.k, model.v))
        q, k, v = (h.reshape(3, 5, 2, 4).transpose(0, 2, 1, 3) for h in projected)
        scores = np.exp(q @ k.swapaxes(-1, -2) / 2) * (1 if mask is None else np.array(mask))
        weights = scores / scores.sum(-1, keepdims=True)
        assert np.array(found[0]) == pytest.approx(weights, abs=1e-6)
        h = (weights @ v).transpose(0, 2, 1, 3).reshape(3, 5, 8)
        assert np.array(got) == pytest.approx(np.array(model.leave(mx.array(h, mx.float32))), abs=1e-5)
    model(x)
    assert len(found) == 1  # nothing is noted outside


def test_weights_of_whole_models_in_lower_precision():
    model = ViT([8, 8, 1], classes=3, patch=4, hidden=8, depth=2, heads=2)
    model.set_dtype(mx.bfloat16)
    with attention_weights() as found:
        model(mx.zeros((2, 8, 8, 1), mx.bfloat16))
    assert [weights.shape for weights in found] == [(2, 2, 5, 5)] * 2
    assert all(np.array(w).sum(-1) == pytest.approx(np.ones((2, 2, 5)), abs=1e-5) for w in found)
    with attention_weights() as found:
        GPT(7, 6, hidden=8, depth=1, heads=2)(mx.array([[1, 2, 3, 4]]))
    (weights,) = found
    assert (np.triu(np.array(weights)[0, 0], 1) == 0).all() and np.array(weights)[0, 0, 0, 0] == 1
