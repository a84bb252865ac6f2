"""The warm-up: what it finds before the first step, and that it changes nothing."""

import random
import re
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from dataloaders.datasets.composed import InterleaveDataset
from dataloaders.pipeline import Pipeline
from models.layers import Dropout
from ops.model_op import ModelOp
from runtime.errors import UsageError
from runtime.op import Op, TensorOp
from runtime.scheduler import EpochScheduler, RepeatScheduler
from tests.traces.small import CLASSES, SIDE, CrossEntropy, Rows
from traces.adapt.early_stopping import EarlyStopping
from traces.adapt.lr_scheduler import LRScheduler
from traces.metrics.accuracy import Accuracy
from traces.trace import Trace
from training.estimator import Estimator
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp
from training.warmup import changes, warm_up


class Noisy(nn.Module):
    """A classifier with statistics and dropout."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(SIDE * SIDE, 8), nn.BatchNorm(8), Dropout(0.5)
        self.last = nn.Linear(8, CLASSES)

    def __call__(self, x, key):
        return self.last(self.drop(self.norm(self.first(x.reshape(len(x), -1))), key))


class Scale(TensorOp):
    """x times a factor; counts how often its graph is built."""

    def __init__(self, factor=1.0, inputs="x", outputs="x", **options):
        super().__init__(inputs, outputs, **options)
        self.factor, self.built = factor, 0

    def forward(self, data, state):
        self.built += 1
        return data * self.factor


class Mean(Op):
    """A running mean as carry, and a count as the op's own state."""

    carry = ("mean",)

    def __init__(self):
        super().__init__(outputs="mean", mode="train")
        self.state = {"count": mx.array(0)}

    def initial_carry(self, batch):
        return {"mean": mx.zeros(())}

    def forward(self, data, ctx):
        self.state["count"] = self.state["count"] + 1
        return {"mean": 0.9 * data["mean"] + 0.1 * data["x"].mean() + 0 * mx.random.normal(key=ctx.key)}


def estimator(ops: Any = (), traces: Any = (), train: Any = None, held: Any = None, epochs: int | None = 3,
              update: Any = None, **options):  # fmt: skip
    """2 steps of 8 an epoch."""
    mx.random.seed(0)
    model = Noisy()
    forward = [*ops, ModelOp(model, "x", "y"), CrossEntropy(("y", "label"), "ce")]
    network = Network([*forward, UpdateOp(model, loss_name="ce", **{"optimizer": "adam", **(update or {})})])
    pipeline = Pipeline(train or Rows(16), held or Rows(10, 1), Rows(6, 2), 8)
    traces = traces(model) if callable(traces) else traces
    return Estimator(pipeline, network, epochs, traces, **options)


CASES: dict[str, dict] = {
    "plain": {},
    "uncompiled": {"compile": False},
    "averages": {"update": {"ema": [0.9], "clip": 0.1}},
    "merged": {"update": {"merge_grad": 2}},
    "accumulated": {"accumulate": 2, "train_steps_per_epoch": 2},
    "half": {"precision": "fp16"},
    "vectors": {"update": {"ema": [0.5]}, "flatten": True},
    "optimizers": {"update": {"optimizer": RepeatScheduler(["adam", "sgd"])}},
    "carry": {"ops": lambda: [Mean()]},
    "scheduled": {"ops": lambda: [RepeatScheduler([Scale(2.0), None]), EpochScheduler({2: Scale(3.0)})]},
    "rate": {"traces": lambda model: [LRScheduler(model, lambda step: 0.1 / step)]},
    "data sets": {"train": InterleaveDataset({"a": Rows(16), "b": Rows(16, 5)}), "ops": lambda: [Scale(2.0, ds_id="b")],
                  "held": {"c": Rows(4), "d": Rows(9)}},
}  # fmt: skip


def made(case):
    options = dict(CASES[case])
    ops, flatten = options.pop("ops", tuple), options.pop("flatten", False)
    trainer = estimator(ops(), max_steps=5, **options)
    if flatten:  # as on a GPU
        trainer.train_step = TrainStep(trainer.network, steps_per_epoch=trainer.steps_per_epoch, flatten=True)
        assert trainer.train_step.vectors
    return trainer


def arrays(trainer):
    return {path: np.array(array) for path, array in trainer.state_arrays().items()}


def equal(first, second):
    assert first.keys() == second.keys()
    for path in first:
        np.testing.assert_array_equal(first[path], second[path], err_msg=path)


def draws():
    return random.random(), np.random.random(), mx.random.uniform().item()


@pytest.mark.parametrize("case", CASES)
def test_five_steps_end_with_the_same_bits_with_and_without_it(case):
    ends, rows, after = [], [], []
    for warmup in (False, True):
        trainer = made(case)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002  the global state is what must stay
        trainer.fit(warmup=warmup)
        ends.append(arrays(trainer))
        after.append(draws())
        rows.append(trainer.summary.history)
    equal(*ends)
    assert rows[0] == rows[1] and after[0] == after[1]


@pytest.mark.parametrize("case", ["averages", "vectors", "optimizers", "carry", "scheduled"])
def test_a_resumed_run_ends_with_the_same_bits(case):
    whole, half = made(case), made(case)
    whole.fit(warmup=False)
    half.total_steps = 3
    half.fit(warmup=False)
    kept = {path: mx.array(array) for path, array in arrays(half).items()}
    again = made(case)
    again.load(kept, half.state_dict(), "test")
    again.fit()
    equal(arrays(whole), arrays(again))


def test_it_changes_nothing_and_computes_nothing():
    class Large(TensorOp):
        """x by way of arrays of 64 MiB."""

        def forward(self, data, state):
            return data + mx.ones((4096, 4096)).sum() - mx.ones((4096, 4096)).mean()

    seen = {}

    class Before(Trace):
        """Looks at the state when the first step begins; on_begin comes before the warm-up."""

        def on_begin(self, data):
            mx.eval(trainer.train_step.state)
            seen["begin"] = arrays(trainer)
            mx.reset_peak_memory()
            seen["memory"] = mx.get_active_memory()

        def on_epoch_begin(self, data):
            if "peak" not in seen:
                seen["peak"] = mx.get_peak_memory()
                seen["later"], seen["training"] = arrays(trainer), model.training
                seen["places"] = network.scheduled()
                trainer.stop("seen")

    mx.random.seed(0)
    model = Noisy()
    first = [EpochScheduler({1: Scale(1.0), 2: Scale(2.0)}), Large("x", "x"), ModelOp(model, "x", "y")]
    update = UpdateOp(model, loss_name="ce", optimizer="adam")
    network = Network([*first, CrossEntropy(("y", "label"), "ce"), update])
    trainer = Estimator(Pipeline(Rows(16), Rows(10, 1), batch_size=8), network, 3, [Before()])
    trainer.fit()
    assert seen["peak"] - seen["memory"] < 2**24
    assert seen["training"] and seen["places"] == (0,)
    equal(seen["begin"], seen["later"])


def test_what_ops_draw_from_global_random_states_is_given_back():
    class Draws(TensorOp):
        """Noise from states that belong to nobody."""

        def forward(self, data, state):
            return data + mx.random.normal(data.shape) + sum(draws())

    trainer, found = estimator([Draws("x", "x")], compile=False), []
    for warmup in (False, True):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        mx.random.seed((7 << 32) + 5)
        if warmup:
            warm_up(trainer, ("train", "eval"))
        found.append(draws())
    assert found[0] == found[1]


def test_the_graphs_are_those_that_the_run_uses():
    counts = []
    for warmup in (False, True):
        ops = [Scale(2.0), Scale(3.0), Scale(1.0)]
        trainer = estimator([EpochScheduler({1: ops[0], 3: ops[1]}), ops[2]])
        trainer.fit(warmup=warmup)
        trainer.test()
        counts.append([op.built for op in ops])
    assert counts[0] == counts[1] == [2, 3, 5]  # training and evaluation each, and the test, by schedule


def test_epochs_at_which_ops_change():
    def at(*schedulers, step=0, epochs: int | None = 9):
        trainer = estimator(schedulers, epochs=epochs, max_steps=None if epochs else 10**9)
        trainer.step = step
        return changes(trainer)

    turns = RepeatScheduler([Scale(), None, Scale()])
    assert at() == [1]
    assert at(EpochScheduler({1: Scale(), 4: None, 7: Scale()})) == [1, 4, 7]
    assert at(EpochScheduler({4: None, 70: Scale()})) == [1, 4]
    assert at(turns) == [1, 2, 3] and at(turns, epochs=2) == [1, 2] and at(turns, step=2) == [2, 3, 4]
    assert at(turns, RepeatScheduler([None, Scale()]), epochs=None) == [1, 2, 3, 4, 5, 6]
    assert at(EpochScheduler({5: Scale()}), turns) == [1, 2, 3, 5, 6, 7]
    assert at(step=18) == [9]


def stopped(message, trainer):
    """It says so before the first step."""
    with pytest.raises(UsageError, match=message) as caught:
        trainer.fit()
    assert trainer.step == 0
    return str(caught.value)


def test_a_key_that_an_op_misses():
    stopped(
        re.escape("Scale misses z in mode train, epoch 1; the data has id, label, x."),
        estimator([Scale(inputs="z")]),
    )
    stopped(
        re.escape("Scale misses z in mode eval, data set 'b', epoch 3; the data has id, label, mask, x."),
        estimator([EpochScheduler({3: Scale(inputs="z", mode="eval", ds_id="b")})], held={"a": Rows(4), "b": Rows(4)}),
    )
    missing = estimator([Scale(inputs="z", mode="eval")])
    with pytest.raises(UsageError, match="misses z in mode eval; the data"):
        missing.fit(warmup=False)
    assert missing.step == 2  # an epoch later


def test_a_model_that_gets_another_shape():
    class Wide(Rows):
        """Images that are too wide."""

        def take(self, indices, rng):
            batch = super().take(indices, rng)
            return {**batch, "x": np.concatenate([batch["x"]] * 2, axis=2)}

    told = stopped(r"Noisy's ModelOp can't compute x \(8, 4, 8, 1\) in mode eval, epoch 1: ", estimator(held=Wide(8)))
    assert "(8,32)" in told and ("addmm" in told or "matmul" in told)  # MLX's own words


def test_other_errors_of_an_op_keep_their_kind():
    class Broken(TensorOp):
        """A mistake in the code."""

        def forward(self, data, state):
            return data.no_such_thing

    with pytest.raises(AttributeError, match="no_such_thing"):
        estimator([Broken("x", "x")]).fit()
    with pytest.raises(NotImplementedError):
        estimator([TensorOp("x", "x")]).fit()


def test_a_key_that_a_trace_misses():
    keys = re.escape("the keys there are ce, id, label, mask, x, y.")
    stopped(
        f"EarlyStopping misses 'acuracy' in mode eval, epoch 1; no earlier trace writes it, and {keys}",
        estimator(traces=[Accuracy("label", "y"), EarlyStopping("acuracy")]),
    )
    stopped(
        "EarlyStopping misses 'accuracy' in mode eval, epoch 1; Accuracy writes it, but stands behind it",
        estimator(traces=[EarlyStopping("accuracy"), Accuracy("label", "y")]),
    )
    sets = {"a": Rows(8, 1), "b": Rows(8, 2)}
    stopped(
        r"EarlyStopping misses 'accuracy\|c' in mode eval, data set 'a', epoch 1",
        estimator(traces=[Accuracy("label", "y"), EarlyStopping("accuracy|c")], held=sets),
    )
    only = CrossEntropy(("x", "label"), "own", mode="eval", ds_id="b")
    only.per_sample = lambda data, state: data[0].sum((1, 2, 3))
    traces = [Accuracy("label", "y"), *map(EarlyStopping, ("accuracy|b", "ce|a", "ce", "own"))]
    estimator([only], traces, held=sets, epochs=1).fit()
    stopped(
        "Trace misses 'own' in mode eval, data set 'a', epoch 1",
        estimator(traces=[Trace("own", mode="eval", ds_id="a")], held=sets),
    )


def test_monitored_keys_must_be_somewhere():
    stopped("no op computes f1 of monitor_names; the keys there are in train: ce, .*; eval: ce, id, label, mask, x, y",
            estimator(monitor_names=["ce", "f1"]))  # fmt: skip
    trainer = estimator([Scale(outputs="double", mode="eval")], monitor_names="double")
    trainer.fit()
    values = trainer.test().latest
    assert "eval/double" in values and "train/double" not in values and "test/double" not in values


def test_keys_that_nobody_reads_are_one_warning(capsys):
    estimator([Scale(outputs="spare", mode="train")], [Trace("id", mode="eval")], epochs=1).fit()
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["warning: no op, update or trace reads these keys: id (train), spare (train)."]
    estimator(traces=[Trace("id")], epochs=1).fit()
    trainer = estimator(epochs=1)
    trainer.fit(warmup=False)
    trainer.total_steps = 4
    trainer.fit()
    assert capsys.readouterr().out == ""  # none; none asked for; no graph was new


def test_an_evaluation_that_never_comes_is_not_looked_at():
    estimator([Scale(inputs="z", mode="eval")], eval_every=None).fit()
    estimator([Scale(inputs="z", mode="eval")], epochs=None, max_steps=1).fit()


def test_a_test_is_looked_at_before_its_first_batch():
    begun = []

    class Began(Trace):
        """Notes batches."""

        def on_batch_begin(self, data):
            begun.append(data.ds_id)

    trainer = estimator([Scale(inputs="z", mode="test", ds_id="b")], [Began(mode="test")])
    trainer.pipeline = Pipeline(Rows(16), None, {"a": Rows(4), "b": Rows(4)}, 4)
    with pytest.raises(UsageError, match="Scale misses z in mode test, data set 'b'"):
        trainer.test()
    assert begun == []
