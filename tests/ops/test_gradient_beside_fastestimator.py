"""GradientOp and FGSM beside FastEstimator's numbers for one small network."""

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_unflatten

from ops.losses.cross_entropy import CrossEntropy
from ops.model_op import ModelOp
from ops.tensor.gradient import FGSM, GradientOp
from runtime.op import Context
from tests.training.by_hand import KEY
from training.network import Network

FIXTURE = json.loads(Path(__file__).with_name("fixtures_gradient.json").read_text())
ZERO = mx.array(0, mx.int32)


def written(*ops, average=True):
    """What a network of a model, its cross-entropy and `ops` writes for the fixture's batch."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    model.update(tree_unflatten([(path, mx.array(value)) for path, value in FIXTURE["weights"].items()]))
    loss = CrossEntropy(("p", "y"), "l", from_logits=True, average_loss=average)
    batch = {"x": mx.array(FIXTURE["x"]), "y": mx.array(FIXTURE["y"])}
    return Network([ModelOp(model, "x", "p"), loss, *ops]).forward(batch, Context("eval", KEY, ZERO, ZERO))


@pytest.mark.parametrize(("average", "key"), [(True, "gradient"), (False, "gradient_of_rows")])
def test_the_gradient_by_the_input_is_fastestimators(average, key):
    found = written(GradientOp("l", "g", "x"), average=average)["g"]
    np.testing.assert_allclose(found, FIXTURE[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", FIXTURE["adversarial"])
def test_the_attack_is_fastestimators(options):
    found = written(FGSM("x", "l", "a", **json.loads(options)))["a"]
    np.testing.assert_allclose(found, FIXTURE["adversarial"][options], rtol=1e-6)
    assert np.abs(np.array(found) - np.array(FIXTURE["x"])).max() > 0.005


def test_a_bound_of_0_is_kept_where_fastestimator_takes_the_least_of_the_data_for_it():
    assert FIXTURE["least with clip_low 0"] == FIXTURE["least of the data"] > 0.05
    found = written(FGSM("x", "l", "a", epsilon=0.3, clip_low=0.0, clip_high=1.0))["a"]
    moved = np.array(FIXTURE["x"]) + 0.3 * np.sign(FIXTURE["gradient"])
    np.testing.assert_allclose(found, np.clip(moved, 0, 1), rtol=1e-6, atol=1e-7)
    assert float(found.min()) == 0
