"""The autoencoder: shapes, derivatives, what the key does, and sizes that don't fit."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from models.autoencoder import Autoencoder
from runtime.errors import UsageError
from tests.models.test_models import central, stirred


def small(**changes):
    mx.random.seed(0)
    return stirred(Autoencoder(**{"shape": [8, 12, 3], "latent": 2, "channels": [8, 16, 16], **changes}), scale=1.0)


def images(count=2):
    return mx.array(np.random.default_rng(1).normal(size=(count, 8, 12, 3)).astype(np.float32))


def test_shapes_and_the_two_ways_to_call_it():
    model, x = small(), images()
    mean, std = model.encode(x)
    out, same_mean, logvar = model(x)
    assert mean.shape == std.shape == (2, *model.latent_shape) == (2, 2, 3, 2) and out.shape == x.shape
    assert mx.array_equal(mean, same_mean).item() and mx.allclose(mx.exp(logvar / 2), std).item()
    assert mx.array_equal(out, model.decode(mean)).item()
    one, again, other = (model(x, key=mx.random.key(seed))[0] for seed in (1, 1, 2))
    assert mx.array_equal(one, again).item() and mx.abs(one - other).max().item() > 1e-2
    assert mx.abs(one - out).max().item() > 1e-2
    assert mx.allclose(model(x[1:])[0], out[1:], atol=1e-5).item()  # rows are independent


def test_a_drawn_latent_has_the_encoders_mean_and_deviation():
    model = small()
    model.decode = lambda z: z  # what would be decoded
    x = mx.broadcast_to(images(1), (400, 8, 12, 3))
    mean, std = model.encode(x[:1])
    drawn = model(x, key=mx.random.key(0))[0]
    assert mx.abs((drawn.mean(axis=0) - mean[0]) / std[0]).max().item() < 5 / np.sqrt(400)
    assert mx.abs(drawn.var(axis=0).sqrt() / std[0] - 1).max().item() < 0.15


@pytest.mark.parametrize("half", ["encode", "decode"])
def test_jvp_and_its_gradient_against_finite_differences(half):
    model = small()
    point = images() if half == "encode" else model.encode(images())[0]
    direction = mx.array(np.random.default_rng(2).normal(size=point.shape).astype(np.float32))

    def f(a):
        return mx.concatenate(model.encode(a)) if half == "encode" else model.decode(a)

    tangent = mx.jvp(f, [point], [direction])[1][0]
    difference = central(f, [point], [direction])
    assert mx.abs(tangent - difference).max().item() < 5e-3 * mx.abs(tangent).max().item()

    def squared(a):
        return mx.square(mx.jvp(f, [a], [direction])[1][0]).mean()

    slope = (mx.grad(squared)(point) * direction).sum().item()
    assert abs(slope - central(squared, [point], [direction]).item()) < 1e-2 * abs(slope) + 1e-4


def test_bfloat16():
    model, x = small(channels=[8, 16]), images(1)
    wide = model(x)
    model.update(nn.utils.tree_map(lambda p: p.astype(mx.bfloat16), model.parameters()))
    for low, high in zip(model(x), wide, strict=True):
        assert low.dtype == mx.bfloat16
        assert mx.abs(low.astype(mx.float32) - high).max().item() < 0.1 * mx.abs(high).max().item()
    gradient = nn.value_and_grad(model, lambda: mx.square(model(x, key=mx.random.key(0))[0]).mean())()[1]
    assert all(mx.isfinite(g).all().item() and mx.abs(g).max().item() > 0 for _, g in tree_flatten(gradient))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"shape": [10, 12, 3]}, "multiples, got 10 x 12"), ({"shape": [8]}, r"got \[8\]"),
     ({"channels": []}, r"channels=\[\]"), ({"latent": 0}, "latent=0"),
     ({"blocks": 0}, "blocks=0"), ({"groups": 3}, "divide the 8 channels, got 3")],
)  # fmt: skip
def test_sizes_that_do_not_fit(changes, said):
    with pytest.raises(UsageError, match=said):
        small(**changes)


def test_wrong_inputs_are_named_with_both_shapes():
    model = small()
    with pytest.raises(UsageError, match=r"x must be \(B, 8, 12, 3\), got \(2, 8, 12, 1\)"):
        model.encode(mx.zeros((2, 8, 12, 1)))
    with pytest.raises(UsageError, match=r"latents of shape \(B, 2, 3, 2\), got \(2, 2, 3, 4\)"):
        model.decode(mx.zeros((2, 2, 3, 4)))
