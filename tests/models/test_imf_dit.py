"""Improved MeanFlow's transformer against the official implementation and its published counts."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from models.imf_dit import TOKENS, IMFDiT
from runtime.errors import UsageError
from tests.models.formula_weights import formula
from tests.models.test_dit import LATENTS, numbers, parity
from tests.models.test_models import make, stirred

FIXTURES = json.loads((Path(__file__).parent / "fixtures_imf_dit.json").read_text())
COUNTS = {"imf_dit": (145_596_960, 88_948_256), "imf_dit_xl": (711_113_760, 610_433_056)}
TIMES = mx.array([[0.7, 0.95], [0.3, 0.3]])
SMALL = {"hidden": 32, "depth": 3, "heads": 4, "head_depth": 1, "classes": 5}


@pytest.mark.parametrize("name", list(COUNTS))
def test_counts_in_training_and_inference(name):
    before = mx.get_active_memory()
    model = make(name, LATENTS, classes=1000, small=False)
    training, inference = COUNTS[name]  # the official code drops the v head's blocks at inference, not its last layer
    assert numbers(model) == training
    assert training - sum(numbers(block) for block in model.v_head.blocks) == inference
    assert mx.get_active_memory() - before < 20e6


@pytest.mark.parametrize("patch", [2, 4])
def test_equals_the_official_implementation(patch):
    model = IMFDiT([8, 8, 3], patch, **SMALL)
    rest = {
        "label": mx.array([3, -1]),
        "guidance": mx.array([3.0, 1.0]),
        "interval": mx.array([[0.2, 0.8], [0.0, 1.0]]),  # [1 - hi, 1 - lo] of the official [.2, .8] and [0, 1]
        "velocity_head": True,
    }
    parity(model, patch, FIXTURES, ["u", "v"], lambda x, times: list(model(x, times, **rest)))


def test_starts_as_zero_with_every_gate_closed():
    mx.random.seed(0)
    model = IMFDiT([8, 8, 3], 2, **SMALL)
    x = mx.array(formula("x", (2, 8, 8, 3)).astype(np.float32))
    for out in model(x, TIMES, label=mx.array([0, 1]), velocity_head=True):
        assert (out == 0).all().item()
    tokens = mx.random.normal((2, 9, 32))
    assert mx.array_equal(model.blocks[0](tokens), tokens).item()
    spread = {name: p.std().item() for name, p in tree_flatten(model.parameters()) if p.ndim > 1}
    for name, wanted in {
        "label.weight": 32**-0.5,
        "tokens.label": 32**-0.5,
        "interval_embedding.first.weight": 1 / 16,
        "interval_embedding.second.weight": 32**-0.5,
        "blocks.0.qkv.weight": 0.32 * 32**-0.5,
        "blocks.0.narrow.weight": 0.32 * 85**-0.5,
        "enter.weight": (2 / (12 + 32)) ** 0.5,
    }.items():
        assert abs(spread[name] / wanted - 1) < 0.15, name


def test_intervals_mirror_and_defaults_mean_no_guidance():
    """Whatever is asymmetric in [lo, hi] enters as [1 - hi, 1 - lo]; None is guidance 1 everywhere."""
    model = stirred(IMFDiT([4, 4, 3], 2, **SMALL))
    seen = {}
    for name in ("low", "high", "guidance", "interval"):
        model[f"{name}_embedding"] = Recorder(name, seen)
    interval, guidance = mx.array([[0.1, 0.6], [0.0, 0.5]]), mx.array([4.0, 1.0])
    model.conditions(TIMES, None, guidance, interval)
    np.testing.assert_allclose(seen["low"], [0.4, 0.5], atol=1e-6)
    np.testing.assert_allclose(seen["high"], [0.9, 1.0], atol=1e-6)
    np.testing.assert_allclose(seen["guidance"], [0.75, 0.0], atol=1e-6)
    np.testing.assert_allclose(seen["interval"], [0.25, 0.0], atol=1e-6)
    model.conditions(TIMES, None, None, None)
    assert seen["low"].tolist() == [0, 0] and seen["high"].tolist() == [1, 1] and seen["guidance"].tolist() == [0, 0]


class Recorder:
    """An embedding that remembers what it was given."""

    def __init__(self, name, seen):
        self.name, self.seen = name, seen

    def __call__(self, value):
        self.seen[self.name] = np.array(value)
        return mx.zeros((value.shape[0], 32))


def test_the_v_head_is_not_computed_without_being_asked():
    model = stirred(IMFDiT([4, 4, 3], 2, **SMALL))
    x = mx.array(formula("x", (2, 4, 4, 3)).astype(np.float32))
    u, v = model(x, TIMES, velocity_head=True)
    assert mx.array_equal(u, model(x, TIMES)).item() and mx.abs(u - v).max().item() > 1e-3
    model.v_head = None
    assert mx.array_equal(u, model(x, TIMES)).item()
    assert sum(TOKENS.values()) == 20


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"patch": 3}, "patch=3"), ({"heads": 32}, "heads=32"), ({"head_depth": 4}, "got 4"), ({"shape": [8]}, r"\[8\]")],
)
def test_sizes_that_do_not_fit(changes, said):
    with pytest.raises(UsageError, match=said):
        IMFDiT(**{"shape": [8, 8, 3], **SMALL, **changes})


@pytest.mark.parametrize(("name", "shape"), [("guidance", (3,)), ("interval", (2,)), ("interval", (2, 3))])
def test_conditions_of_a_wrong_shape(name, shape):
    model = IMFDiT([4, 4, 3], 2, **SMALL)
    with pytest.raises(UsageError, match=f"{name} must have shape"):
        model(mx.zeros((2, 4, 4, 3)), TIMES, **{name: mx.zeros(shape)})
