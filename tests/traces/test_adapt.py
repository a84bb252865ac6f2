"""Traces that change the course of a training, each in runs where it must act, must not, and goes on after a resume."""

from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from optimizers.decays import cosine_decay
from runtime.errors import UsageError
from runtime.slots import snapshot
from tests.traces.test_protocol import estimator
from tests.training.by_hand import assert_same
from traces.adapt.early_stopping import EarlyStopping
from traces.adapt.lr_scheduler import LRScheduler, WarmupScheduler
from traces.adapt.reduce_lr_on_plateau import ReduceLROnPlateau
from traces.adapt.terminate_on_nan import TerminateOnNaN
from traces.trace import Trace


class Scores(Trace):
    """Writes given scores, one an evaluation."""

    def __init__(self, *scores):
        super().__init__(outputs="score", mode="eval")
        self.scores = scores

    def on_epoch_end(self, data):
        data.write_with_log("score", self.scores[self.estimator.epoch - 1])


class Rates(Trace):
    """Notes the rate of every update and the weights after every epoch."""

    def __init__(self):
        super().__init__(mode="train")
        self.rates, self.weights = [], []

    def on_batch_end(self, data):
        self.rates.append(data["learning_rate"].item())

    def on_epoch_end(self, data):
        self.weights.append(arrays(self.estimator))

    def on_step_end(self):
        self.saved = arrays(self.estimator)  # what a checkpoint of this step holds


def arrays(trainer):
    return {k: np.array(v) for k, v in snapshot(trainer.network.models).items()}


def scheduled(make, epochs=4, extra=()):
    """A run (2 steps an epoch, base rate 1e-3) with a trace made of its model, and the note of its rates."""
    note = Rates()
    trainer = estimator([], epochs=epochs)
    trainer.traces = [make(trainer.network.models["model"]), *extra, note]
    return trainer, note


@pytest.mark.parametrize(("compare", "scores", "epochs"), [
    ("min", (3, 2, 2.05, 1.95, 2), 4), ("max", (1, 2, 2.05, 2, 3), 4), ("min", (1, 0.8, 0.6, 0.4, 0.2), 5),
    ("min", (2, 2, 1, 1, 0), 5), ("min", (float("nan"), float("nan"), 1, 1, 1), 2),
])  # fmt: skip
def test_early_stopping_stops_when_the_patience_is_over(compare, scores, epochs):
    trainer = estimator([Scores(*scores), EarlyStopping("score", 0.1, patience=2, compare=compare)], epochs=5)
    summary = trainer.fit()
    assert summary.steps == 2 * epochs
    assert ("has not improved for 2 evaluations" in summary.reason) == (epochs < 5)


def test_early_stopping_sees_the_loss_of_its_own_epoch_and_a_baseline():
    seen = EarlyStopping(patience=9)
    trainer = estimator([seen], epochs=3)
    trainer.fit()
    losses = [row["eval/loss"] for row in trainer.summary.history if "eval/loss" in row]
    assert len(losses) == 3 and seen.best.value == min(losses) and seen.best_epoch == 1 + int(np.argmin(losses))
    assert estimator([EarlyStopping(patience=1, baseline=-1.0)], epochs=3).fit().steps == 2


@pytest.mark.parametrize("scores", [(1, 3, 2, 2, 2), (1, 2, 5, 4, 4), (1, 2, 3, 4, 3)])
def test_the_best_weights_come_back(scores, tmp_path):
    note = Rates()
    stopping = EarlyStopping("score", patience=2, compare="max", restore_best_weights=True, save_dir=tmp_path)
    trainer = estimator([Scores(*scores), stopping, note], epochs=5)
    trainer.fit()
    best = int(np.argmax(scores))
    assert len(note.weights) == min(5, best + 3)
    assert_same(arrays(trainer), note.weights[best])
    assert_same(note.saved, note.weights[best])
    again = EarlyStopping("score", patience=1, compare="max", restore_best_weights=True, save_dir=tmp_path)
    again.load_state_dict(stopping.state_dict())
    resumed = estimator([Scores(0), again], epochs=1)
    resumed.fit()
    assert_same(arrays(resumed), note.weights[best])


def test_early_stopping_names_a_value_that_nobody_writes():
    with pytest.raises(UsageError, match="score"):
        estimator([EarlyStopping("score"), Scores(1, 2)]).fit()


def test_a_lower_rate_on_a_plateau():
    def make(model):
        return ReduceLROnPlateau(model, "score", patience=2, factor=0.1, min_lr=5e-5)

    trainer, note = scheduled(make, epochs=7)
    trainer.traces.insert(0, Scores(1, 2, 2, 2, 2, 0, 2))
    trainer.fit()
    np.testing.assert_allclose(note.rates, [1e-3] * 6 + [1e-4] * 4 + [5e-5] * 4, rtol=1e-6)
    assert trainer.summary.latest["eval/learning_rate"] == pytest.approx(5e-5)
    trainer, note = scheduled(make, epochs=4)
    trainer.traces.insert(0, Scores(4, 3, 2, 1))
    trainer.fit()
    np.testing.assert_allclose(note.rates, 1e-3, rtol=1e-6)


def test_a_plateau_of_the_models_own_loss_goes_on_after_a_resume():
    first = ReduceLROnPlateau(nn.Linear(1, 1), patience=1)
    first.best.improved(0.0)
    trainer, note = scheduled(lambda model: ReduceLROnPlateau(model, patience=2), epochs=2)
    trainer.traces[0].load_state_dict({**first.state_dict(), "wait": 1})
    trainer.fit()
    np.testing.assert_allclose(note.rates, [1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-6)


@pytest.mark.parametrize(("lr_fn", "expected"), [
    (lambda step: cosine_decay(step, 5, 0.01), [cosine_decay(t, 5, 0.01) for t in range(1, 9)]),
    (partial(cosine_decay, cycle_length=5, init_lr=0.01), [cosine_decay(t, 5, 0.01) for t in range(1, 9)]),
    (lambda epoch: 0.1 / epoch, [0.1, 0.1, 0.05, 0.05, 0.1 / 3, 0.1 / 3, 0.025, 0.025]),
    (lambda epoch: 0.5 if epoch < 3 else 0.25, [0.5] * 4 + [0.25] * 4),
    (lambda step: float(np.sqrt(step)), np.sqrt(np.arange(1, 9))),
])  # fmt: skip
def test_the_rate_is_a_function_of_step_or_epoch(lr_fn, expected):
    trainer, note = scheduled(lambda model: LRScheduler(model, lr_fn))
    trainer.fit()
    np.testing.assert_allclose(note.rates, expected, rtol=1e-6)


def test_a_resumed_schedule_goes_on_exactly():
    def make(model):
        return LRScheduler(model, lambda step: cosine_decay(step, 5, 0.01))

    whole, note = scheduled(make)
    whole.fit()
    half, _ = scheduled(make, epochs=2)
    half.fit()
    rest, end = scheduled(make)
    rest.load({k: mx.array(v) for k, v in half.state_arrays().items()}, {**half.state_dict(), "traces": {}}, "half")
    rest.fit()
    assert end.rates == note.rates[4:]
    assert_same(arrays(rest), arrays(whole))


def test_fit_twice_installs_once():
    trainer, note = scheduled(lambda model: WarmupScheduler(model, 4), epochs=1)
    trainer.fit()
    trainer.total_steps = 4
    trainer.fit()
    np.testing.assert_allclose(note.rates, [0.25e-3, 0.5e-3, 0.75e-3, 1e-3], rtol=1e-6)


def test_what_is_no_function_of_step_or_epoch_is_refused():
    two: Any = lambda step, epoch: 0.1  # noqa: E731  typed, so that only the test says it is wrong
    with pytest.raises(UsageError, match="one argument named step or epoch, got batch"):
        LRScheduler(nn.Linear(1, 1), lambda batch: 0.1)
    with pytest.raises(UsageError, match="one argument named step or epoch, got step, epoch"):
        LRScheduler(nn.Linear(1, 1), two)
    trainer, _ = scheduled(lambda model: LRScheduler(model, lambda step: 0.1 if step < 3 else 0.2))
    trainer.total_steps, trainer.max_time = None, 1.0
    with pytest.raises(UsageError, match="can't be traced"):
        trainer.fit()


@pytest.mark.parametrize(("target", "expected"), [
    (None, [0.5e-3, 1e-3, 1.5e-3, 2e-3, 1e-3, 1e-3, 0.5e-3, 0.5e-3]),
    (0.04, [0.01, 0.02, 0.03, 0.04, 1e-3, 1e-3, 0.5e-3, 0.5e-3]),
])  # fmt: skip
def test_a_warm_up_goes_before_the_schedule(target, expected):
    steps = mx.array([2e-3] * 4 + [1e-3] * 2 + [5e-4] * 2)
    trainer, note = scheduled(lambda model: LRScheduler(model, lambda step: steps[step - 1]))
    trainer.traces.insert(1, WarmupScheduler(trainer.traces[0].model, 4, target))
    trainer.fit()
    np.testing.assert_allclose(note.rates, expected, rtol=1e-6)


def test_a_score_that_is_not_finite_stops_the_run():
    trainer = estimator([Scores(1, float("nan"), 1), TerminateOnNaN(monitor_names="score")], epochs=3)
    assert trainer.fit().steps == 4 and "score" in trainer.summary.reason
    trainer = estimator([Scores(1, float("nan"), 1), TerminateOnNaN(monitor_names="*")], epochs=3)
    assert trainer.fit().steps == 4
    assert estimator([Scores(1, float("nan"), 1), TerminateOnNaN()], epochs=3).fit().steps == 6


@pytest.mark.parametrize(("value", "stops"), [(float("nan"), True), (float("inf"), True), (1.0, False)])
def test_a_value_in_lower_precision_is_looked_at_as_well(value, stops):
    class Low(Trace):
        def on_epoch_end(self, data):
            data.write_without_log("score", mx.array(value, mx.bfloat16))

    trainer = estimator([Low(mode="eval"), TerminateOnNaN(monitor_names="score")], epochs=2)
    assert trainer.fit().steps == (2 if stops else 4)
