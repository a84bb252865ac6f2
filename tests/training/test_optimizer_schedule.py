"""Optimizers that change with the epoch, beside the same training by hand."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from dataloaders.pipeline import Pipeline
from ops.model_op import ModelOp
from runtime.errors import UsageError
from runtime.scheduler import EpochScheduler, RepeatScheduler
from tests.traces.small import CrossEntropy, Net, Rows
from tests.training.by_hand import weights
from traces.adapt.lr_scheduler import LRScheduler, WarmupScheduler
from traces.trace import Trace
from training.build import build
from training.estimator import Estimator
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp
from training.warmup import changes

MAKERS = {
    "sgd": lambda: optim.SGD(0.1, momentum=0.9),
    "adam": lambda: optim.Adam(0.05, bias_correction=True),
    "adam_by_name": lambda: optim.Adam(1e-3, bias_correction=True),
}


def trainer(scheduler, epochs=4, traces=(), **update):
    """2 steps of 8 an epoch, no evaluation."""
    mx.random.seed(0)
    model = build(Net, optimizer_fn=scheduler)
    ops = [ModelOp(model, "x", "y"), CrossEntropy(("y", "label"), "ce"), UpdateOp(model, loss_name="ce", **update)]
    pipeline = Pipeline(Rows(16), batch_size=8)
    return Estimator(pipeline, Network(ops), epochs, traces(model) if callable(traces) else list(traces))


def by_hand(plan, rates=None):
    """Weights after 2 steps an epoch; plan: which of MAKERS each epoch has, None for none. rates: of every step."""
    mx.random.seed(0)
    model = Net()
    optimizers = {name: MAKERS[name]() for name in set(plan) - {None}}
    for optimizer in optimizers.values():
        optimizer.init(model.trainable_parameters())
    batches = Pipeline(Rows(16), batch_size=8).batches("train")

    def loss(model, x, label):
        return nn.losses.cross_entropy(model(x), label).mean()

    for step in range(2 * len(plan)):
        batch = {key: mx.array(value) for key, value in next(batches).items()}
        _, gradients = nn.value_and_grad(model, loss)(model, batch["x"], batch["label"])
        if plan[step // 2] is not None:
            optimizer = optimizers[plan[step // 2]]
            if rates is not None:
                optimizer.learning_rate = rates[step]
            optimizer.update(model, gradients)
            mx.eval(model.parameters(), optimizer.state)
    batches.close()
    return weights(model)


def near(found, expected):
    assert found.keys() == expected.keys()
    for path in found:
        np.testing.assert_allclose(found[path], expected[path], rtol=2e-5, atol=1e-7, err_msg=path)


PLANS = {
    "epochs": (lambda: EpochScheduler({1: MAKERS["sgd"], 3: "adam"}), ["sgd", "sgd", "adam_by_name", "adam_by_name"]),
    "turns": (lambda: RepeatScheduler([MAKERS["sgd"], MAKERS["adam"]]), ["sgd", "adam", "sgd", "adam"]),
    "rest": (lambda: EpochScheduler({2: MAKERS["adam"], 3: None, 4: MAKERS["sgd"]}), [None, "adam", None, "sgd"]),
}


@pytest.mark.parametrize("plan", PLANS)
def test_each_epoch_has_its_optimizer_with_a_state_of_its_own(plan):
    scheduler, told = PLANS[plan]
    run = trainer(scheduler())
    run.fit()
    near(weights(run.network.models["model"]), by_hand(told))


def test_optimizers_in_turn_go_on_after_a_resume():
    scheduler, told = PLANS["turns"]
    half = trainer(scheduler(), epochs=1)
    half.fit()
    again = trainer(scheduler())
    again.load({path: mx.array(a) for path, a in half.state_arrays().items()}, half.state_dict(), "test")
    again.fit()
    near(weights(again.network.models["model"]), by_hand(told))


class Rates(Trace):
    """Notes the rate of every step."""

    def __init__(self):
        super().__init__(mode="train")
        self.rates = []

    def on_batch_end(self, data):
        self.rates.append(round(data["learning_rate"].item(), 6))


def test_rates_are_those_of_the_epochs_optimizer_or_of_a_schedule():
    scheduler, told = PLANS["rest"]
    plain, scheduled, warmed = Rates(), Rates(), Rates()
    trainer(scheduler(), traces=[plain]).fit()
    assert plain.rates == [0, 0, 0.05, 0.05, 0, 0, 0.1, 0.1]
    run = trainer(scheduler(), traces=lambda model: [LRScheduler(model, lambda step: 0.01 * step), scheduled])
    run.fit()
    assert scheduled.rates == [0, 0, 0.03, 0.04, 0, 0, 0.07, 0.08]
    near(weights(run.network.models["model"]), by_hand(told, [0.01 * step for step in range(1, 9)]))
    run = trainer(PLANS["turns"][0](), traces=lambda model: [WarmupScheduler(model, 4, start_lr=0.0), warmed])
    run.fit()
    np.testing.assert_allclose(warmed.rates, [0.025, 0.05, 0.0375, 0.05, 0.1, 0.1, 0.05, 0.05], rtol=1e-5)


def test_a_step_is_traced_once_for_each_optimizer_and_the_warm_up_knows_them():
    run = trainer(PLANS["rest"][0]())
    assert changes(run) == [1, 2, 3, 4] and changes(trainer(PLANS["turns"][0](), epochs=9)) == [1, 2]
    run.fit()
    assert len(run.train_step._compiled) == 4
    assert run.network.updates[0].groups is run.network.updates[0].turns[2]


def test_merged_gradients_wait_while_the_weights_rest_and_a_vector_is_not_made():
    run = trainer(EpochScheduler({1: "sgd", 2: None, 3: "sgd"}), epochs=3, merge_grad=2)
    run.fit()
    whole = trainer("sgd", epochs=3, merge_grad=2)
    batches, step = whole.pipeline.batches("train"), whole.train_step
    for number in range(6):
        batch = {key: mx.array(value) for key, value in next(batches).items()}
        if number // 2 != 1:
            step(batch, mx.random.key(0), phases=whole.network.phases(number))
    batches.close()
    near(weights(run.network.models["model"]), weights(whole.network.models["model"]))
    assert TrainStep(trainer(PLANS["turns"][0]()).network, flatten=True).vectors == []


def test_a_direct_step_asks_for_the_epoch_itself():
    run = trainer(PLANS["turns"][0]())
    step, batches = run.train_step, run.pipeline.batches("train")
    for _ in range(8):
        step({key: mx.array(value) for key, value in next(batches).items()}, mx.random.key(0))
    batches.close()
    near(weights(run.network.models["model"]), by_hand(PLANS["turns"][1]))


def test_what_can_not_be_scheduled_is_refused():
    with pytest.raises(UsageError, match="no optimizer 'adma'"):
        build(Net, optimizer_fn=EpochScheduler({1: "sgd", 2: "adma"}))
    with pytest.raises(UsageError, match="needs one optimizer at least"):
        UpdateOp(Net(), optimizer=EpochScheduler({1: None}))
    with pytest.raises(UsageError, match="scheduled optimizer can't have its own"):
        UpdateOp(Net(), optimizer=EpochScheduler({1: "sgd"}), groups=[{"match": "bias", "optimizer": "adam"}])
    update = UpdateOp(Net(), optimizer=EpochScheduler({1: "sgd", 2: "adam"}), groups=[{"match": "bias"}])
    assert [len(turn) for turn in update.optimized] == [2, 2] and len(update.state["optimizers"]) == 4
