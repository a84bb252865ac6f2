"""Ops that change with the epoch, in training, evaluation and after a resume."""

import mlx.core as mx
import numpy as np
import pytest

from dataloaders.pipeline import Pipeline
from runtime.errors import UsageError
from runtime.op import Op, TensorOp
from runtime.scheduler import EpochScheduler, RepeatScheduler
from tests.traces.test_protocol import Rows
from tests.training.by_hand import Adam, mlp
from traces.trace import Trace
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp


class Times(TensorOp):
    """x times a factor; counts how often its graph is made."""

    def __init__(self, factor, **options):
        super().__init__("x", "scaled", **options)
        self.factor, self.traced = factor, 0

    def forward(self, data, state):
        self.traced += 1
        return data * self.factor


class Loss(Op):
    def __init__(self, model):
        super().__init__(outputs="loss")
        self.models = {"model": model}

    def forward(self, data, ctx):
        scaled = data.get("scaled", data["x"])
        return {"loss": ctx.wrap(self.models["model"])(scaled).square().mean(), "seen": (scaled / data["x"]).mean()}


class Seen(Trace):
    def __init__(self):
        super().__init__("seen")
        self.seen = {"train": [], "eval": []}

    def on_batch_end(self, data):
        self.seen[data.mode].append(round(float(np.mean(np.array(data["seen"]))), 4))


def run(scheduler, epochs, start=None):
    model, note = mlp(), Seen()
    network = Network([scheduler, Loss(model), UpdateOp(model, optimizer=Adam)])
    pipeline = Pipeline(Rows(8), Rows(4, 1), batch_size=4)
    trainer = Estimator(pipeline, network, epochs, [note])
    if start is not None:
        trainer.load(
            {k: mx.array(v) for k, v in start.state_arrays().items()}, {**start.state_dict(), "traces": {}}, "s"
        )
    trainer.fit()
    return trainer, note.seen


def test_an_op_changes_with_the_epoch_and_is_compiled_once_for_each_value():
    first, second = Times(2.0), Times(3.0)
    _, seen = run(EpochScheduler({1: first, 2: None, 4: second}), 6)
    assert seen["train"] == [2, 2, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3]
    assert seen["eval"] == [2, 1, 1, 3, 3, 3]
    assert (first.traced, second.traced) == (2, 2)  # training and evaluation


def test_ops_in_turn_go_on_after_a_resume():
    def make():
        return RepeatScheduler([Times(2.0), Times(5.0, mode="train"), Times(3.0)])

    half, before = run(make(), 1)
    _, after = run(make(), 4, start=half)
    assert before == {"train": [2, 2], "eval": [2]}
    assert after == {"train": [5, 5, 3, 3, 2, 2], "eval": [1, 3, 2]}


def test_what_can_not_be_scheduled_is_refused():
    with pytest.raises(UsageError, match="UpdateOp can't stand inside of ScheduledOp"):
        Network([RepeatScheduler([UpdateOp(mlp(), optimizer=Adam), None])])
    with pytest.raises(UsageError, match="ScheduledOp needs ops, got str"):
        Network([RepeatScheduler(["a", "b"])])
