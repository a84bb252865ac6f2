"""Evaluation data set by data set: means, hooks, who takes part, and what traces can monitor."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from dataloaders.pipeline import Pipeline
from ops.model_op import ModelOp
from runtime.op import TensorOp
from tests.traces.small import CrossEntropy, Net, Rows
from traces.adapt.early_stopping import EarlyStopping
from traces.adapt.reduce_lr_on_plateau import ReduceLROnPlateau
from traces.io.model_saver import BestModelSaver
from traces.metrics.accuracy import Accuracy
from traces.trace import Trace
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp

SETS = {"a": Rows(10, 1), "b": Rows(7, 2), "c": Rows(4, 3)}


def estimator(traces: Any = (), ops=(), sets=SETS, epochs=1, rate=0.1, **options):
    """Training on 16 rows; evaluation and test on the sets, in batches of 4."""
    mx.random.seed(0)
    model = Net()
    ops = [ModelOp(model, "x", "y"), CrossEntropy(("y", "label"), "ce"), *ops]
    network = Network([*ops, UpdateOp(model, loss_name="ce", optimizer="sgd", learning_rate=rate)])
    pipeline = Pipeline(Rows(16), sets, {name: sets[name] for name in ("b", "a")}, 4)
    traces = traces(model) if callable(traces) else traces
    return Estimator(pipeline, network, epochs, traces, **options)


def by_hand(trainer, rows):
    """Cross-entropy and hits of every row (n,), in NumPy."""
    layer = trainer.network.models["model"].layer
    scores = rows.x.reshape(len(rows), -1) @ np.array(layer.weight).T + np.array(layer.bias)
    chances = np.exp(scores - scores.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    return -np.log(chances[np.arange(len(rows)), rows.label]), scores.argmax(1) == rows.label


class Noted(Trace):
    """Notes hooks with their data sets."""

    def __init__(self, **options):
        super().__init__(inputs="id", **options)
        self.heard, self.last = [], {}

    def note(self, hook, data):
        self.heard.append((hook, data.ds_id, tuple(np.array(data["id"]).tolist()) if "id" in data else ()))
        self.last[hook, data.ds_id] = dict(data)

    def on_epoch_begin(self, data):
        self.note("epoch_begin", data)

    def on_ds_begin(self, data):
        self.note("ds_begin", data)

    def on_batch_end(self, data):
        self.note("batch_end", data)

    def on_ds_end(self, data):
        self.note("ds_end", data)
        data.write_with_log("count", 3)

    def on_epoch_end(self, data):
        self.note("epoch_end", data)


@pytest.mark.parametrize(("mode", "names"), [("eval", "abc"), ("test", "ba")])
def test_losses_and_metrics_of_every_data_set_and_of_all_rows(mode, names):
    trainer = estimator([Accuracy("label", "y")])
    trainer.fit()
    values = trainer.test().latest if mode == "test" else trainer.summary.latest
    losses, hits = zip(*(by_hand(trainer, SETS[name]) for name in names), strict=True)
    for name, own, right in zip(names, losses, hits, strict=True):
        np.testing.assert_allclose(values[f"{mode}/ce|{name}"], own.mean(), rtol=1e-5)
        np.testing.assert_allclose(values[f"{mode}/accuracy|{name}"], right.mean(), rtol=1e-12)
    np.testing.assert_allclose(values[f"{mode}/ce"], np.concatenate(losses).mean(), rtol=1e-5)
    np.testing.assert_allclose(values[f"{mode}/accuracy"], np.concatenate(hits).mean(), rtol=1e-12)
    assert f"{mode}/ce|" not in values and not any(name.count("|") > 1 for name in values)


def test_hooks_surround_every_data_set_and_its_own_traces_hear_it_alone():
    noted, only, others = (Noted(mode="eval", ds_id=ds_id) for ds_id in (None, "b", "!b"))
    trainer = estimator([noted, only, others])
    trainer.evaluate("eval")
    batches = {"a": [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)], "b": [(0, 1, 2, 3), (4, 5, 6)], "c": [(0, 1, 2, 3)]}

    def expected(names):
        sets = [[("ds_begin", n, ()), *(("batch_end", n, ids) for ids in batches[n]), ("ds_end", n, ())] for n in names]
        return [("epoch_begin", "", ()), *sum(sets, []), ("epoch_end", "", ())]

    assert (noted.heard, only.heard, others.heard) == (expected("abc"), expected("b"), expected("ac"))
    assert set(noted.last["ds_end", "a"]) == {"ce"}
    end = noted.last["epoch_end", ""]
    assert set(end) == {"ce", *(f"{key}|{name}" for key in ("ce", "count") for name in "abc")}
    assert end["ce|b"] == trainer.summary.latest["eval/ce|b"] and trainer.summary.latest["eval/count|a"] == 3


def test_a_data_set_without_a_name_has_no_hooks_of_its_own():
    noted, absent = Noted(mode="eval"), Noted(mode="eval", ds_id="b")
    trainer = estimator([noted, absent, Accuracy("label", "y")], sets={"": SETS["a"], "b": SETS["b"], "a": SETS["a"]})
    trainer.pipeline = Pipeline(Rows(16), SETS["a"], None, 4)
    assert set(trainer.evaluate("eval")) == {"eval/ce"} and "eval/accuracy" in trainer.summary.latest
    assert [hook for hook, _, _ in noted.heard] == ["epoch_begin", *["batch_end"] * 3, "epoch_end"]
    assert absent.heard == []


class Name(TensorOp):
    """The length of the data set's name, which only the context knows."""

    def __init__(self, **options):
        super().__init__("label", "length", **options)
        self.traced = []

    def forward(self, data, state):
        self.traced.append(state.ds_id)
        return mx.full(data.shape, len(state.ds_id))


@pytest.mark.parametrize(("ds_id", "names"), [(None, ["a", "bb"]), ("bb", ["bb"]), (["a", "c"], ["a"]), ("!a", ["bb"])])
def test_ops_take_part_by_data_set_and_know_its_name(ds_id, names):
    name = Name(mode="eval", ds_id=ds_id)
    sets = {"a": SETS["a"], "bb": SETS["b"]}
    mx.random.seed(0)
    model = Net()
    network = Network([ModelOp(model, "x", "y"), name, CrossEntropy(("y", "label"), "ce"),
                       UpdateOp(model, loss_name="ce", optimizer="sgd")])  # fmt: skip
    trainer = Estimator(Pipeline(Rows(16), sets, None, 4), network, 2, monitor_names=())
    trainer.monitor_names = ("length",)
    for _ in range(2):
        values = trainer.evaluate("eval")
    found = {key.split("|")[1]: value for key, value in values.items() if key.startswith("eval/length|")}
    assert found == {own: len(own) for own in names}
    assert name.traced == names  # compiled once for each


def test_a_loss_of_one_data_set_counts_its_rows_only():
    trainer = estimator(ops=[CrossEntropy(("y", "label"), "extra", ds_id="b", mode="eval")])
    values = trainer.evaluate("eval")
    own, _ = by_hand(trainer, SETS["b"])
    np.testing.assert_allclose([values["eval/extra"], values["eval/extra|b"]], own.mean(), rtol=1e-5)
    assert "eval/extra|a" not in values


def test_eval_steps_limit_each_data_set():
    noted = Noted(mode="eval")
    estimator([noted], eval_steps_per_epoch=1).evaluate("eval")
    assert [ds_id for hook, ds_id, _ in noted.heard if hook == "batch_end"] == ["a", "b", "c"]


def test_what_stops_saves_and_slows_can_watch_one_data_set(tmp_path):
    class Given(Trace):
        """Accuracies that are told."""

        def __init__(self):
            super().__init__(outputs="accuracy", mode="eval")
            self.values = {"a": iter([0.1, 0.3, 0.2, 0.2, 0.2]), "b": iter([0.1, 0.2, 0.3, 0.4, 0.5]),
                           "c": iter([0.0] * 5)}  # fmt: skip

        def on_ds_end(self, data):
            data.write_with_log("accuracy", next(self.values[data.ds_id]))

    def traces(model):
        return [
            Given(),
            EarlyStopping("accuracy|a", patience=2, compare="max"),
            BestModelSaver(model, tmp_path, "accuracy|b", "max"),
            ReduceLROnPlateau(model, "accuracy|a", patience=1, best_mode="max"),
        ]

    trainer = estimator(traces, epochs=5)
    assert trainer.fit().reason.startswith("accuracy|a has not improved") and trainer.epoch == 4
    assert (tmp_path / "model_best_accuracy_b.safetensors").exists()
    latest = trainer.summary.latest
    assert latest["eval/max_accuracy|b"] == 0.4 and latest["eval/since_best_accuracy|b"] == 0
    np.testing.assert_allclose(trainer.network.updates[0].state["scale"].item(), 0.01, rtol=1e-6)


@pytest.mark.parametrize("compile", [True, False])
def test_an_evaluation_leaves_the_ops_states_alone(compile):
    class Count(TensorOp):
        """Counts its batches."""

        def __init__(self):
            super().__init__("x", "count")
            self.state = {"count": mx.array(0)}

        def forward(self, data, state):
            self.state["count"] = self.state["count"] + 1
            return self.state["count"]

    trainer = estimator(ops=[Count()], epochs=2, compile=compile)
    trainer.fit(warmup=False)
    assert trainer.network.ops[2].state["count"].item() == trainer.step == 8
