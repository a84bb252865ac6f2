"""Faults of an earlier port, each with a test that fails on it."""

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from ops.loss_op import LossOp
from ops.model_op import ModelOp
from tests.training.by_hand import KEY, Apply, batches, mlp, weights
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp


class Squared(LossOp):
    def per_sample(self, data, state):
        return (data[0] - data[1]).square().mean(axis=-1)


def classifier(model, **options):
    return Network([ModelOp(model, "x", "out"), Squared(("out", "y"), "loss"),
                    UpdateOp(model, "loss", optim.SGD, 0.1, **options)])  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 2.0**15])
def test_the_fp16_scale_cancels(scale):
    ends = []
    for precision in ("fp32", "fp16"):
        model = mlp()
        step = TrainStep(classifier(model), precision=precision)
        if precision == "fp16":
            step.state["scaler"]["scale"] = mx.array(scale)
        step(batches(1)[0], KEY)
        ends.append(weights(model))
    start = weights(mlp())
    for path in start:
        moved = [end[path] - start[path] for end in ends]
        np.testing.assert_allclose(moved[1], moved[0], rtol=0.05, atol=2e-4)


def test_every_layer_under_a_list_is_clipped_and_moves():
    model = mlp()
    start = weights(model)
    TrainStep(classifier(model, clip=1e-3))(batches(1)[0], KEY)
    moved = {path: new - start[path] for path, new in weights(model).items()}
    assert all(np.any(change) for change in moved.values())
    np.testing.assert_allclose(np.sqrt(sum((m**2).sum() for m in moved.values())), 1e-4, rtol=0.02)


def test_the_forward_is_traced_once_for_one_loss():
    model, calls = mlp(), []

    def forward(data, ctx, model):
        calls.append(1)
        return {"loss": (model(data["x"]) - data["y"]).square().mean()}

    step = TrainStep(Network([Apply("loss", forward, model=model), UpdateOp(model, "loss", optim.SGD, 0.1)]))
    for batch in batches(3):
        step(batch, KEY)
    assert len(calls) == 1
