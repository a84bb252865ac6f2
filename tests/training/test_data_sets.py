"""Training on several data sets: ops, updates and traces of each take part in its batches alone."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from dataloaders.datasets.composed import InterleaveDataset
from dataloaders.pipeline import Pipeline
from ops.model_op import ModelOp
from runtime.errors import UsageError
from tests.traces.small import CrossEntropy, Net, Rows
from tests.training.by_hand import weights
from traces.io.logger import Logger
from traces.trace import Trace
from training.estimator import Estimator
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp


def net(seed):
    mx.random.seed(seed)
    model = Net()
    mx.eval(model.parameters())
    return model


def branch(model, name, optimizer="adam", **options):
    """One classifier that sees the batches of one data set, or of all."""
    out, loss = f"y_{name}", f"ce_{name}"
    return [ModelOp(model, "x", out, **options), CrossEntropy((out, "label"), loss, **options),
            UpdateOp(model, loss_name=loss, optimizer=optimizer, learning_rate=0.05, **options)]  # fmt: skip


def in_turn(ops, traces=(), **options):
    """Batches of 4 of a, b, b in turn: 12 steps in 2 epochs."""
    data = InterleaveDataset({"a": Rows(8, 1), "b": Rows(16, 2)}, ["a", "b", "b"])
    return Estimator(Pipeline(data, batch_size=4), Network(ops), 2, traces, eval_every=None, **options)


def alone(model, name, optimizer):
    """The weights after the same batches of one data set, with a step that knows of no other."""
    data = InterleaveDataset({"a": Rows(8, 1), "b": Rows(16, 2)}, ["a", "b", "b"])
    batches = Pipeline(data, batch_size=4).batches("train", ds_id=name)
    step = TrainStep(Network(branch(model, name, optimizer)))
    for _ in range({"a": 4, "b": 8}[name]):
        step({key: mx.array(value) for key, value in next(batches).items()}, mx.random.key(0))
    batches.close()
    return weights(model)


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_each_update_moves_by_the_batches_of_its_own_data_set(optimizer, flatten):
    models = {"a": net(1), "b": net(2)}
    ops = [op for name in "ab" for op in branch(models[name], name, optimizer, ds_id=name)]
    before, after = [op for op in ops if not isinstance(op, UpdateOp)], [op for op in ops if isinstance(op, UpdateOp)]
    trainer = in_turn([*before, *after])
    trainer.train_step = TrainStep(trainer.network, steps_per_epoch=trainer.steps_per_epoch, flatten=flatten)
    trainer.fit()
    for seed, name in enumerate("ab", 1):
        expected, found = alone(net(seed), name, optimizer), weights(models[name])
        assert set(expected) == set(found)
        for path in expected:
            np.testing.assert_allclose(found[path], expected[path], rtol=2e-5, atol=1e-7)
    assert trainer.step == 6 * 2


def test_traces_hear_their_own_batches_and_losses_carry_the_name(capsys):
    class Heard(Trace):
        def __init__(self, **options):
            super().__init__(mode="train", **options)
            self.heard = []

        def on_batch_begin(self, data):
            self.heard.append(data.ds_id)

        def on_batch_end(self, data):
            self.heard.append((data.ds_id, sorted(key for key in data if key.startswith("ce_"))))

    every, one = Heard(), Heard(ds_id="a")
    *forward, update = branch(net(1), "a", ds_id="a")
    in_turn([*forward, *branch(net(2), "b"), update], [every, one, Logger(log_steps=1)], train_steps_per_epoch=3).fit()
    a, b = ["a", ("a", ["ce_a", "ce_b"])], ["b", ("b", ["ce_b"])]
    assert every.heard == [*a, *b, *b] * 2 and one.heard == a * 2
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Train: step: 2;")]
    assert len(lines) == 1 and "ce_b|b: " in lines[0] and "ce_a" not in lines[0]


def test_a_batch_that_trains_nothing_changes_only_the_counters():
    model = net(1)
    trainer = in_turn(branch(model, "a", ds_id="a"))
    start, held = weights(model), {}

    class Watch(Trace):
        def on_batch_end(self, data):
            held[trainer.step] = {path: np.array(array) for path, array in trainer.state_arrays().items()}

    trainer.traces.append(Watch())
    trainer.fit()
    moved = [step for step in range(2, 13)
             if any((held[step][p] != held[step - 1][p]).any() for p in held[step] if p != "step")]  # fmt: skip
    assert moved == [4, 7, 10] and int(held[12]["step"]) == 12
    assert any((held[1][f"models.model.{path}"] != start[path]).any() for path in start)


def test_what_would_mix_data_sets_in_one_update_is_refused():
    with pytest.raises(UsageError, match="an UpdateOp with ds_id can't have accumulate=2"):
        in_turn(branch(net(1), "a", ds_id="a"), accumulate=2)
    with pytest.raises(UsageError, match="merge_grad=2 with ds_id"):
        UpdateOp(nn.Linear(2, 2), optimizer="sgd", merge_grad=2, ds_id="a")
