"""AdamATan2 beside PyTorch and a loop in float64, alone and in the compiled step.

fixtures_optimizers.json holds numbers only. adam_atan2: seven float32 weights, some with gradients of 1e-8 or 1e3, one
with none, after each of five steps by PyTorch 2.13's operations in the order of imoneoi/adam-atan2's kernel (42a1aeb).
sign_sgd: see tests/training/test_tables.py.
"""

import json
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from models.trm import TRM
from optimizers.adam_atan2 import AdamATan2
from runtime.errors import UsageError
from runtime.op import Objective, ObjectiveOp
from tests.training.by_hand import KEY, Regression, assert_same, batches, mlp, primitives_of, weights
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp

FIXTURE = json.loads((Path(__file__).parent / "fixtures_optimizers.json").read_text())["adam_atan2"]


def steps(optimizer, start, gradients):
    """The weights after every step."""
    weight, found = {"w": mx.array(start)}, []
    for gradient in gradients:
        weight = optimizer.apply_gradients({"w": mx.array(gradient)}, weight)
        found.append(np.array(weight["w"]))
    return np.stack(found)


def in_float64(start, gradients, rate, b1, b2, decay):
    p, m, v, found = np.array(start, np.float64), 0.0, 0.0, []
    for t, g in enumerate(np.array(gradients, np.float64), 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        p = p * (1 - rate * decay) - rate / (1 - b1**t) * np.arctan2(m, np.sqrt(v / (1 - b2**t)))
        found.append(p)
    return np.stack(found)


def test_it_is_pytorchs():
    optimizer = AdamATan2(FIXTURE["rate"], FIXTURE["betas"], FIXTURE["weight_decay"])
    found = steps(optimizer, FIXTURE["start"], FIXTURE["gradients"])
    np.testing.assert_allclose(found, FIXTURE["weights"], rtol=0, atol=1e-6)
    assert np.ptp(found, axis=0).min() > 0.005  # every weight has moved by more than the tolerance


@pytest.mark.parametrize("settings", [(0.1, 0.9, 0.95, 0.0), (0.02, 0.0, 0.999, 2.0), (1.0, 0.5, 0.0, 0.1)])
def test_it_is_a_loop_in_float64(settings):
    rate, b1, b2, decay = settings
    rng = np.random.default_rng(1)
    start, gradients = rng.normal(size=50).astype(np.float32), rng.normal(size=(20, 50)).astype(np.float32)
    found = steps(AdamATan2(rate, (b1, b2), decay), start, gradients)
    np.testing.assert_allclose(found, in_float64(start, gradients, *settings), rtol=3e-6, atol=3e-6)


def test_the_first_step_is_a_quarter_turn_whatever_the_size_of_the_gradient():
    found = steps(AdamATan2(0.1, (0.5, 0.75), 0.0), np.zeros(4), [[1e-12, -1e12, 3.0, 0.0]])
    size = 0.1 / 0.5 * np.arctan2(0.5, 1)  # m = (1 - b1) g and sqrt(v / (1 - b2)) = |g|
    np.testing.assert_allclose(found[0], [size, -size, size, 0] * np.array([-1, -1, -1, 1]), rtol=1e-6)


def test_moments_are_float32_and_a_leaf_keeps_its_type():
    optimizer = AdamATan2(0.1)
    moved = optimizer.apply_gradients({"w": mx.ones(3, mx.bfloat16)}, {"w": mx.ones(3, mx.bfloat16)})
    assert moved["w"].dtype == mx.bfloat16
    assert {optimizer.state["w"][name].dtype for name in ("m", "v")} == {mx.float32}


def trained(count, **options):
    model = mlp()
    update = UpdateOp(model, "loss", partial(AdamATan2, weight_decay=0.5), 1e-2, ema=[0.9])
    step = TrainStep(Network([ObjectiveOp(model, Regression()), update]), **options)
    step.start(batches(1)[0])
    for batch in batches(count):
        step(batch, KEY)
    return step, weights(model)


def test_compiled_flattened_and_eager_steps_train_alike():
    eager = trained(5, compile=False)[1]
    assert_same(trained(5, flatten=False)[1], eager, atol=1e-6)
    step, flat = trained(5, flatten=True)
    assert len(step.vectors) == 1
    assert_same(flat, eager, atol=1e-6)


def test_a_leafs_whole_update_is_one_kernel():
    names = primitives_of(trained(1, flatten=False)[0], batches(1)[0])
    kernels = [name for name in names if "ArcTan2" in name]
    assert len(kernels) == 6 and all("Select" in name for name in kernels)  # fused with the guard, of three layers


class Nothing(Objective):
    """A loss of 0 with gradients of 0, for tests."""

    def __call__(self, model, batch, ctx):
        x, label = batch["x"], mx.zeros((len(batch["x"]), 16, 6))
        y, z = model.start(len(x))
        logits, q = model(x, y, z)[2:]
        return 0 * ((logits * label).sum() + q.sum()), {}


def test_a_group_has_its_own_decay_and_every_leaf_one_optimizer():
    mx.random.seed(0)
    model = TRM(6, 16, hidden=16, heads=2, low=1, high=1, prefix=0, mixer="mlp")
    spared = {"match": "embedding|head|q_", "optimizer": partial(AdamATan2, weight_decay=0.0)}
    update = UpdateOp(model, "loss", partial(AdamATan2, weight_decay=0.5), 0.1, groups=[spared])
    before, step = weights(model), TrainStep(Network([ObjectiveOp(model, Nothing()), update]), compile=False)
    step({"x": mx.ones((2, 16), mx.int32)}, KEY)
    held = [set(group.optimizer.state) - {"step", "learning_rate"} for group in update.groups]
    assert held[0] == {"embedding", "head", "q_weight", "q_bias"} and not held[0] & held[1]
    assert held[0] | held[1] == set(before) - {"y_start", "z_start"}  # these two are not trained
    for path, leaf in weights(model).items():
        factor = 0.95 if path in held[1] else 1.0  # a gradient of 0 moves nothing: what is left is 1 - rate decay
        np.testing.assert_allclose(leaf, factor * before[path], rtol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    "settings, said",
    [({"betas": (0.9, 1.0)}, "two betas.*1.0"), ({"betas": (0.9,)}, "two betas"), ({"weight_decay": -1}, "got -1")],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        AdamATan2(0.1, **settings)
