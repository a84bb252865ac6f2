"""LRScheduler with a controller: what it is told and when, what becomes of the rate, and a resume in the middle."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest

from optimizers.arc import ARC
from runtime.errors import UsageError
from runtime.rate_controller import RateController
from tests.traces.small import estimator
from tests.traces.test_adapt import Rates, arrays
from tests.training.by_hand import assert_same
from traces.adapt.lr_scheduler import LRScheduler, WarmupScheduler

STEPS = 4  # an epoch


class Scripted(RateController):
    """Gives factors in turn and notes what it is told."""

    def __init__(self, frequency, *factors):
        super().__init__(frequency)
        self.factors, self.told, self.rates = list(factors), [], []

    def train_loss(self, loss, progress):
        self.told.append(("train", loss, progress))

    def eval_loss(self, loss):
        self.told.append(("eval", loss))

    def multiplier(self, rate):
        self.told.append("end")
        self.rates.append(rate)
        return self.factors.pop(0)


class Feeling(RateController):
    """A factor that every loss of the cycle and its place in it have a part in."""

    seen = 0.0

    def train_loss(self, loss, progress):
        self.seen += loss * (1 + progress)

    def eval_loss(self, loss):
        self.seen += 10 * loss

    def multiplier(self, rate):
        factor, self.seen = math.exp(-self.seen / 50 + rate), 0.0
        return factor

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class Losses(Rates):
    """Notes the training losses too."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_batch_end(self, data):
        super().on_batch_end(data)
        self.losses.append(data["ce"].item())


def run(controller, epochs=4, more=(), **options):
    note = Losses()
    trainer = estimator(lambda model: [*more, LRScheduler(model, controller), note], epochs=epochs, **options)
    return trainer, note


def test_a_cycle_is_told_whole_with_its_last_evaluation_and_then_changes_the_rate():
    controller = Scripted(2, 1.618, 0.5)
    trainer, note = run(controller)
    history = trainer.fit().history
    np.testing.assert_allclose(note.rates, [0.1] * 2 * STEPS + [0.1618] * 2 * STEPS, rtol=1e-6)
    np.testing.assert_allclose(controller.rates, [0.1, 0.1618], rtol=1e-6)
    evals = [row["eval/ce"] for row in history if "eval/ce" in row]
    expected = []
    for epoch in range(4):
        for step in range(epoch * STEPS, (epoch + 1) * STEPS):
            expected.append(("train", note.losses[step], step % (2 * STEPS) / (2 * STEPS)))
        expected += [("eval", evals[epoch])] + ["end"] * (epoch % 2)
    assert controller.told == expected
    assert [row["eval/learning_rate_factor"] for row in history if "eval/learning_rate_factor" in row] == [1.618, 0.5]


@pytest.mark.parametrize("options", [{"eval_every": None}, {"eval_every": 3}])
def test_where_no_evaluation_ends_the_cycle_the_training_does(options):
    controller = Scripted(1, 0.5, 0.5)
    trainer, note = run(controller, epochs=2, **options)
    trainer.fit()
    np.testing.assert_allclose(note.rates, [0.1] * STEPS + [0.05] * STEPS, rtol=1e-6)
    assert [told[0] for told in controller.told].count("eval") == (2 if options["eval_every"] else 0)
    assert trainer.summary.latest["train/learning_rate_factor"] == 0.5


def test_it_multiplies_the_schedule_that_there_is():
    trainer, note = run(Scripted(1, 0.5, 1.0), epochs=2)
    trainer.traces.insert(0, WarmupScheduler(trainer.network.models["model"], 6))
    trainer.fit()
    expected = 0.1 * np.minimum(np.arange(1, 9) / 6, 1) * ([1] * STEPS + [0.5] * STEPS)
    np.testing.assert_allclose(note.rates, expected, rtol=1e-6)


@pytest.mark.parametrize("steps", [3, 4, 6, 8, 11])
def test_a_resume_in_the_middle_is_exact(steps):
    whole, note = run(Feeling(2), epochs=6)
    whole.fit()
    half, first = run(Feeling(2), epochs=None, max_steps=steps)
    half.fit()
    rest, end = run(Feeling(2), epochs=6)
    state = json.loads(json.dumps(half.state_dict()))
    rest.load({k: mx.array(v) for k, v in half.state_arrays().items()}, state, "half")
    rest.fit()
    assert first.rates + end.rates == note.rates and first.losses + end.losses == note.losses
    assert_same(arrays(rest), arrays(whole))
    assert len(set(note.rates)) == 3


def test_a_loss_that_evaluation_lacks_is_told_of_training_alone():
    controller = Scripted(1, 1.0)
    trainer, _ = run(controller, epochs=1)
    for op in trainer.network.ops:
        if "ce" in op.outputs:
            op.mode = "train"
    trainer.fit()
    assert [told[0] for told in controller.told[:-1]] == ["train"] * STEPS and controller.told[-1] == "end"


def test_a_frequency_must_be_an_integer_above_0():
    for wrong in (0, -1, 2.0, True, "3"):
        with pytest.raises(UsageError, match=f"integer above 0, got {wrong!r}"):
            Scripted(wrong)


def test_arc_raises_a_rate_that_is_far_too_low():
    trainer, note = run(ARC(), epochs=9, rate=0.01, train=256)
    for source in trainer.pipeline.sources.values():  # what can be learned
        source.label = source.x.reshape(len(source), -1)[:, :3].argmax(1).astype(np.int32)
    trainer.fit()
    np.testing.assert_allclose(note.rates[:: 3 * trainer.steps_per_epoch], 0.01 * 1.618 ** np.arange(3), rtol=1e-5)


def test_a_training_whose_losses_are_not_finite_goes_on_at_a_lower_rate():
    trainer, note = run(ARC(1), epochs=3)
    trainer.pipeline.sources["train"].x[:] = math.nan
    trainer.fit()
    np.testing.assert_allclose(note.rates[::STEPS], 0.1 * 0.618 ** np.arange(3), rtol=1e-5)
