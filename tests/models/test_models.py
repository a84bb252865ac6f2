"""One test for every configs/model/*.yaml: it builds, keeps shapes, differentiates, runs in bf16 and compiled.

Networks of other tasks (their output is no sample) leave themselves out by name in OTHERS.
"""

from functools import partial
from pathlib import Path
from typing import Any

# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# MLX's stubs type leaves as strings too and items as complex
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from omegaconf import OmegaConf

from models.unet import Attention
from runtime.errors import UsageError
from runtime.instantiate import build

CONFIGS = Path(__file__).parents[2] / "configs" / "model"
OTHERS = {"dit_b", "dit_m", "dit_l", "dit_xl", "imf_dit_xl"}  # sizes of dit_s and imf_dit: counted in test_dit.py
OTHERS |= {"autoencoder", "vae", "lenet", "resnet9", "wide_resnet", "segmentation_unet", "attention_unet", "gpt"}
OTHERS |= {"vit_tiny", "vit_small", "vit_base", "vit_large", "transformer", "siamese"}
OTHERS |= {"cvae_encoder", "cvae_decoder", "dcgan_generator", "dcgan_discriminator"}
OTHERS |= {"eis_predictor", "eis_factorial", "eis_flow", "trm", "trm_mlp", "hrm"}
SHAPES = {"mlp": [2], "residual_mlp": [2], "cnn": [8, 8, 1], "unet": [8, 8, 3]}
SMALL = {"unet": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "heads": 2, "dropout": 0.1}}
SMALL["mlp"] = {"hidden": 16, "depth": 2}
SMALL["residual_mlp"] = {"width": 16, "blocks": 2}
SMALL["cnn"] = {"channels": 8, "blocks": 2, "dropout": 0.1}
SHAPES |= {"dit_s": [4, 8, 3], "imf_dit": [4, 8, 3]}
SMALL["dit_s"] = {"hidden": 16, "depth": 2, "heads": 2}
SMALL["imf_dit"] = {**SMALL["dit_s"], "head_depth": 1}
SHAPES["song_unet"] = [8, 8, 3]
SMALL["song_unet"] = {**SMALL["unet"], "attention": [8]}
NAMES = sorted({file.stem for file in CONFIGS.glob("*.yaml")} - OTHERS)
PARAMETERS = {  # (name, shape): count, by hand for the perceptrons
    ("mlp", (2,)): 4 * 256 + 256 + 2 * (256 * 256 + 256) + 256 * 2 + 2,
    ("residual_mlp", (2,)): 2 * 128 + 128 + 2 * (128 + 128) + 3 * (128 * 512 + 512 + 512 * 128 + 128) + 128 * 2 + 2,
    ("cnn", (28, 28, 1)): 521_281,
    ("unet", (32, 32, 3)): 51_026_435,
}
EVERY = pytest.mark.parametrize("name", NAMES)


def make(name, shape=None, classes=0, small=True, **changes):
    node = OmegaConf.load(CONFIGS / f"{name}.yaml")
    whole = OmegaConf.create({"dataloaders": {"shape": shape or SHAPES[name], "classes": classes}, "model": node})
    mx.random.seed(0)
    plain: Any = OmegaConf.to_container(whole, resolve=True)
    return build({**plain["model"], **(SMALL.get(name, {}) if small else {}), **changes})


def stirred(model, scale=0.5):
    """Random weights everywhere, also in the layers that start at zero; the seed is fixed."""
    rng = np.random.default_rng(0)

    def draw(p):
        fan = max(1, p.size // p.shape[0])
        return mx.array(rng.normal(scale=scale / np.sqrt(fan) if p.ndim > 1 else 0.3, size=p.shape).astype(np.float32))

    return model.update(tree_map(draw, model.parameters()))


def inputs(name, count=3):
    rng = np.random.default_rng(1)
    times = np.sort(rng.uniform(size=(count, 2)), axis=1)
    return mx.array(rng.normal(size=(count, *SHAPES[name])).astype(np.float32)), mx.array(times.astype(np.float32))


def test_no_config_is_forgotten():
    assert set(SHAPES) >= set(NAMES)


@pytest.mark.parametrize("name, shape", list(PARAMETERS))
def test_parameter_counts(name, shape):
    model = make(name, list(shape), small=False)  # lazy: the weights are never computed
    assert sum(p.size for _, p in tree_flatten(model.parameters())) == PARAMETERS[name, shape]


def test_a_unet_attends_after_every_stage_or_the_last_of_a_height():
    def attending(choice):
        model = make("unet", [32, 32, 3], small=False, decoder_attention=choice)
        stages = [[isinstance(stage.attention, Attention) for stage in level] for level in model.up]
        return stages, sum(p.size for _, p in tree_flatten(model.parameters()))

    some, none, each = [False, False, False, True], [False] * 4, [True] * 4
    assert attending("last") == ([none, some, some, none], 51_026_435)
    assert attending("every") == ([none, each, each, none], 52_608_515)
    with pytest.raises(UsageError, match="one of 'every', 'last', got 'first'"):
        make("unet", decoder_attention="first")


@EVERY
@pytest.mark.parametrize("kind", [list, tuple])
def test_shape_as_list_or_tuple(name, kind):
    model = make(name)
    assert type(model)(kind(SHAPES[name])).shape == model.shape == tuple(SHAPES[name])


@EVERY
def test_forward_keeps_shape_and_depends_on_everything(name):
    model = stirred(make(name, classes=4), scale=1.0)
    x, times = inputs(name)
    label = mx.array([0, 3, -1])
    out = model(x, times, label=label)
    assert out.shape == x.shape and mx.isfinite(out).all().item()
    for other in (
        model(x + 0.1, times, label=label),
        model(x, times + mx.array([0.1, 0.0]), label=label),
        model(x, times + mx.array([0.0, 0.1]), label=label),
        model(x, times, label=mx.array([1, 2, 0])),
    ):
        assert (mx.abs(other - out).reshape(3, -1).max(axis=1) > 1e-4).all().item()  # every row moves
    assert mx.allclose(model(x, times, label=mx.array([-1, -1, -1])), model(x, times), atol=1e-6).item()
    assert mx.allclose(model(x[1:], times[1:], label=label[1:]), out[1:], atol=1e-4).item()  # rows are independent


def directional(name):
    """f(x, times), a point and a direction with MeanFlow's time tangent (dr = 1, dt = 0)."""
    model = stirred(make(name))
    x, times = inputs(name)
    direction = mx.array(np.random.default_rng(2).normal(size=x.shape).astype(np.float32))
    return model, [x, times], [direction, mx.broadcast_to(mx.array([1.0, 0.0]), times.shape)]


def central(f, point, direction, step=0.02):
    """A fourth-order central difference along a direction."""
    values = {k: f(*(p + k * step * d for p, d in zip(point, direction, strict=True))) for k in (-2, -1, 1, 2)}
    return (values[-2] - 8 * values[-1] + 8 * values[1] - values[2]) / (12 * step)


@EVERY
def test_jvp_against_finite_differences(name):
    model, point, direction = directional(name)
    tangent = mx.jvp(model, point, direction)[1][0]
    difference = central(model, point, direction)
    assert mx.abs(tangent - difference).max().item() < 5e-3 * mx.abs(tangent).max().item()


def squared_tangent(model, direction):
    """A loss of the weights made of the model's jvp, as MeanFlow's is."""

    def loss(weights, x, times):
        model.update(weights)
        return mx.square(mx.jvp(model, [x, times], direction)[1][0]).mean()

    return loss


@EVERY
def test_gradient_of_the_jvp_against_finite_differences(name):
    model, point, direction = directional(name)
    weights, loss = model.parameters(), squared_tangent(model, direction)
    gradient = mx.grad(loss)(weights, *point)
    rng = np.random.default_rng(3)
    change = tree_map(lambda p: mx.array(rng.normal(scale=0.1, size=p.shape).astype(np.float32)), weights)

    def moved(k):
        return loss(tree_map(lambda p, d: p + k * d, weights, change), *point).item()

    step = 0.02
    difference = (moved(-2 * step) - 8 * moved(-step) + 8 * moved(step) - moved(2 * step)) / (12 * step)
    products = tree_map(lambda g, d: (g * d).sum(), gradient, change)
    slope = sum(value.item() for _, value in tree_flatten(products))
    assert abs(slope - difference) < 1e-2 * abs(difference) + 1e-4


# compiling the fused kernels of a convolutional network takes a minute on a machine that has not done it before
@pytest.mark.parametrize(
    "name", [name if "mlp" in name else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_compiled_gradient_of_the_jvp(name):
    model, point, direction = directional(name)
    weights, loss = model.parameters(), squared_tangent(model, direction)
    gradient = mx.grad(loss)(weights, *point)
    model.update(weights)
    compiled = mx.compile(mx.grad(loss))(weights, *point)
    for (key, eager), (_, fused) in zip(tree_flatten(gradient), tree_flatten(compiled), strict=True):
        assert mx.allclose(fused, eager, rtol=1e-2, atol=1e-3 * (1 + mx.abs(eager).max().item())).item(), key


@EVERY
def test_compiled_train_state(name):
    model = stirred(make(name, classes=3))
    x, times = inputs(name)
    label, key = mx.array([0, 1, 2]), mx.random.key(0)

    @partial(mx.compile, inputs=[model.state], outputs=[model.state])
    def forward(x, times, label, key):
        return model(x, times, key=key, label=label)

    once = forward(x, times, label, key)
    assert mx.allclose(once, model(x, times, key=key, label=label), atol=1e-4).item()
    model.update(tree_map(lambda p: 1.1 * p, model.parameters()))  # new weights reach the compiled function
    assert mx.allclose(forward(x, times, label, key), model(x, times, key=key, label=label), atol=1e-4).item()


@EVERY
def test_bfloat16(name):
    model, point, direction = directional(name)
    wide = model(*point)
    tangent = mx.jvp(model, point, direction)[1][0]
    model.update(tree_map(lambda p: p.astype(mx.bfloat16), model.parameters()))
    narrow, low = (v[0] for v in mx.jvp(model, point, direction))
    assert narrow.dtype == low.dtype == mx.bfloat16
    assert mx.abs(narrow.astype(mx.float32) - wide).max().item() < 0.05 * mx.abs(wide).max().item()
    assert mx.abs(low.astype(mx.float32) - tangent).max().item() < 0.1 * mx.abs(tangent).max().item()
    gradient = nn.value_and_grad(model, lambda: mx.square(model(*point)).mean())()[1]
    assert all(g.dtype == mx.bfloat16 and mx.isfinite(g).all().item() for _, g in tree_flatten(gradient))


@pytest.mark.parametrize("name", [n for n in NAMES if "dropout" in SMALL.get(n, {})])
def test_dropout_follows_the_key(name):
    model, point, _ = directional(name)
    plain, one, again, other = (model(*point, key=k and mx.random.key(k)) for k in (None, 1, 1, 2))
    assert mx.array_equal(one, again).item()
    assert mx.abs(one - plain).max().item() > 1e-3 and mx.abs(one - other).max().item() > 1e-3


@pytest.mark.parametrize("name", ["cnn", "unet", "dit_s", "imf_dit"])
def test_images_start_as_zero(name):
    x, times = inputs(name)
    assert (make(name)(x, times) == 0).all().item()


@EVERY
def test_wrong_shapes_are_refused_with_both_shapes(name):
    model = make(name)
    x, times = inputs(name)
    wrong = mx.zeros((3, *[n + 1 for n in SHAPES[name]]))
    with pytest.raises(UsageError) as caught:
        model(wrong, times)
    assert str(tuple(wrong.shape)) in str(caught.value) and str(tuple(SHAPES[name])) in str(caught.value)
    with pytest.raises(UsageError, match=r"\(3, 2\)"):
        model(x, None)
    with pytest.raises(UsageError, match="classes=0"):
        model(x, times, label=mx.array([0, 1, 2]))


def test_unet_refuses_images_it_cannot_halve_and_points():
    with pytest.raises(UsageError, match="multiples of 8, got 28 x 28"):
        make("unet", [28, 28, 1], small=False)
    with pytest.raises(UsageError, match=r"\[height, width, channels\], got \[2\]"):
        make("unet", [2])
    with pytest.raises(UsageError, match="heads"):
        make("unet", heads=3)
