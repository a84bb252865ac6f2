"""The order in which traces are told, what they see, and that they obey "!mode" and what others wrote."""

import mlx.core as mx
import numpy as np
import pytest

from dataloaders.pipeline import Pipeline
from dataloaders.source import Source
from runtime.errors import UsageError
from runtime.op import ObjectiveOp
from runtime.scheduler import EpochScheduler, RepeatScheduler
from tests.training.by_hand import Adam, Regression, mlp
from traces.trace import Trace
from training.data import Data
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp

HOOKS = ("on_begin", "on_epoch_begin", "on_batch_begin", "on_batch_end", "on_epoch_end", "on_end")


class Rows(Source):
    """A source of `count` rows."""

    shape, classes = (2,), 0

    def __init__(self, count, seed=0):
        self.rows = np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)

    def __len__(self):
        return len(self.rows)

    def take(self, index, rng):
        return {"x": self.rows[index], "y": self.rows[index] ** 2, "id": np.asarray(index)}

    def fingerprint(self):
        return "rows"


class Told(Trace):
    """Notes what it is told."""

    def __init__(self, inputs=(), **options):
        super().__init__(inputs, **options)
        self.heard = []

    def __getattribute__(self, name):
        if name in HOOKS:
            return lambda data: self.heard.append((data.mode, name, data))
        return super().__getattribute__(name)


def estimator(traces, epochs=2, **options):
    model = mlp()
    pipeline = Pipeline(Rows(8), Rows(5, 1), Rows(3, 2), batch_size=4)
    network = Network([ObjectiveOp(model, Regression()), UpdateOp(model, "loss", Adam)])
    return Estimator(pipeline, network, epochs, traces, **options)


def test_one_epoch_goes_in_order():
    told = Told()
    estimator([told], epochs=1).fit()
    train = [("train", "on_epoch_begin"), *[("train", "on_batch_begin"), ("train", "on_batch_end")] * 2]
    evaluation = [("eval", "on_epoch_begin"), *[("eval", "on_batch_begin"), ("eval", "on_batch_end")] * 2]
    assert [(mode, hook) for mode, hook, _ in told.heard] == [
        ("train", "on_begin"), *train, ("train", "on_epoch_end"), *evaluation, ("eval", "on_epoch_end"),
        ("train", "on_end"),
    ]  # fmt: skip


@pytest.mark.parametrize(("mode", "modes"), [("!train", {"train", "eval"}), ("!eval", {"train"}), ("test", set())])
def test_traces_obey_their_mode(mode, modes):
    told = Told(mode=mode)
    estimator([told]).fit()
    assert {heard for heard, _, _ in told.heard} == modes
    batches = {heard for heard, hook, _ in told.heard if hook == "on_batch_end"}
    assert batches == {"!train": {"eval"}, "!eval": {"train"}, "test": set()}[mode]


class Noted(Told):
    """Notes epochs too."""

    def __init__(self):
        super().__init__()
        self.notes = []

    def on_log(self, values):
        self.notes.append(("log", self.estimator.step, *values))

    def on_step_end(self):
        self.notes.append(("step", self.estimator.step))


def test_scheduled_traces_are_told_of_their_epochs_only():
    first, third, always = Noted(), Noted(), Noted()
    estimator([EpochScheduler({1: first, 2: None, 3: third}), RepeatScheduler([always, always])], epochs=4).fit()
    whole = [(mode, hook) for mode, hook, _ in always.heard]
    per_epoch = (len(whole) - 2) // 4
    epochs = [whole[1 + i * per_epoch : 1 + (i + 1) * per_epoch] for i in range(4)]
    assert (
        epochs[0] == epochs[3] and epochs[0][0] == ("train", "on_epoch_begin") and ("eval", "on_epoch_end") in epochs[0]
    )
    ends = [("train", "on_begin")], [("train", "on_end")]
    assert [(mode, hook) for mode, hook, _ in first.heard] == [*ends[0], *epochs[0], *ends[1]]
    assert [(mode, hook) for mode, hook, _ in third.heard] == [*ends[0], *epochs[2], *epochs[3], *ends[1]]
    assert first.notes == [("step", 1), ("log", 2, "eval/loss"), ("step", 2)]
    assert third.notes == [note for note in always.notes if note[1] > 4] and len(always.notes) == 12


def test_test_runs_the_test_data():
    told = Told(["id"])
    trainer = estimator([told])
    trainer.test()
    assert [hook for _, hook, _ in told.heard] == list(HOOKS)
    assert {mode for mode, _, _ in told.heard} == {"test"}
    assert told.heard[3][2]["id"].tolist() == [0, 1, 2]


def test_evaluation_shows_real_rows_only_and_its_loss_at_the_end_of_the_same_epoch():
    told = Told(["id", "x"], mode="eval")
    trainer = estimator([told], epochs=1)
    trainer.fit()
    ends = [data for _, hook, data in told.heard if hook == "on_batch_end"]
    assert [data["id"].tolist() for data in ends] == [[0, 1, 2, 3], [4]]
    assert all(isinstance(data["x"], mx.array) and len(data["x"]) == len(data["id"]) for data in ends)
    (last,) = [data for mode, hook, data in told.heard if hook == "on_epoch_end"]
    assert last["loss"] == trainer.summary.latest["eval/loss"]


def test_what_a_trace_writes_is_seen_by_later_ones_and_logged_if_asked():
    class Writes(Trace):
        def on_epoch_end(self, data):
            data.write_with_log("score", np.float32(0.5))
            data.write_without_log("hidden", 7)

    before, after = Told(mode="eval"), Told(mode="eval")
    trainer = estimator([before, Writes(mode="eval"), after], epochs=1)
    trainer.fit()
    seen = [data for _, hook, data in after.heard if hook == "on_epoch_end"][0]
    assert seen["score"] == 0.5 and seen["hidden"] == 7
    assert trainer.summary.latest["eval/score"] == 0.5 and "eval/hidden" not in trainer.summary.latest
    assert trainer.summary.history[-1]["eval/score"] == 0.5


def test_an_absent_key_is_named_with_those_there_are():
    with pytest.raises(UsageError, match="there is no 'b' in mode eval; this event has a"):
        Data({"a": 1}, "eval")["b"]
    assert Data({}).get("a") is None


def test_update_of_finds_the_update_of_a_model():
    trainer = estimator([])
    assert trainer.update_of(trainer.network.models["model"]) is trainer.network.updates[0]
    with pytest.raises(UsageError, match="no UpdateOp trains this Sequential"):
        trainer.update_of(mlp())
