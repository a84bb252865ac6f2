"""What EarlyStopping, ReduceLROnPlateau, BestModelSaver and LRScheduler decide, beside FastEstimator's decisions."""

import json
import math
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_map

from optimizers.decays import cosine_decay
from tests.traces.small import Net, estimator
from traces.adapt.early_stopping import EarlyStopping
from traces.adapt.lr_scheduler import LRScheduler
from traces.adapt.reduce_lr_on_plateau import ReduceLROnPlateau
from traces.io.model_saver import BestModelSaver
from traces.trace import Trace
from training.build import load_model
from training.data import Data

FIXTURE = json.loads(Path(__file__).with_name("fixtures_adapt.json").read_text())
DIFFERS = FIXTURE["differs"]


def values(case):
    return [float(value) for value in FIXTURE["values"][case["values"]]]


def cases(name):
    named = FIXTURE[name]
    ids = [f"{c['values']} {c.get('options', c.get('mode'))}" for c in named]
    return pytest.mark.parametrize("case", named, ids=ids)


def ended(trace, trainer, value):
    """One evaluation more: an epoch has passed, and the trace sees its value."""
    trace.estimator = trainer
    trainer.step += trainer.steps_per_epoch
    data = Data({"score": value}, "eval")
    trace.on_epoch_end(data)
    return data


@cases("early_stopping")
def test_early_stopping_stops_when_fastestimators_does(case, monkeypatch):
    trainer, trace = estimator(epochs=99), EarlyStopping("score", **case["options"])
    reasons = []
    monkeypatch.setattr(trainer, "stop", reasons.append)
    for value in values(case):
        ended(trace, trainer, value)
        if reasons:
            break
    assert (trainer.epoch, bool(reasons), trace.best.value) == (case["epochs"], case["stopped"], case["best"])
    if reasons:
        best = trainer.epoch - trace.best.wait  # 0 where only the baseline was never beaten
        assert reasons[0].endswith(f"its best was {case['best']:g} at epoch {best}")


@cases("plateau")
def test_a_plateau_lowers_the_rate_as_fastestimators(case):
    trainer, rates = estimator(epochs=99, rate=0.01), []
    model = trainer.network.models["model"]
    trace, update = ReduceLROnPlateau(model, "score", **case["options"]), trainer.update_of(model)
    for value in values(case):
        ended(trace, trainer, value)
        rates.append(update.groups[-1].rate(mx.array(trainer.step)).item() * update.state["scale"].item())
    np.testing.assert_allclose(rates, case["rates"], rtol=1e-5)


@cases("best")
def test_the_best_model_is_saved_when_fastestimators_is(case, tmp_path):
    trainer = estimator(epochs=99)
    model = trainer.network.models["model"]
    trace = BestModelSaver(model, tmp_path, "score", case["mode"])
    trace.estimator = trainer
    trace.on_begin(Data())
    found = {"since": [], "best": [], "saved_of_epoch": []}
    for epoch, value in enumerate(values(case), 1):
        model.update(tree_map(lambda leaf, epoch=epoch: mx.full(leaf.shape, float(epoch)), model.parameters()))
        data, kept = ended(trace, trainer, value), Net()
        load_model(kept, tmp_path / "model_best_score.safetensors")
        found["since"].append(data["since_best_score"])
        found["best"].append(data[f"{case['mode']}_score"])
        found["saved_of_epoch"].append(float(kept.layer.weight.max()))
    assert found == {name: case[name] for name in found}


class Rates(Trace):
    """Notes the rate of every update."""

    def __init__(self):
        super().__init__(mode="train")
        self.rates = []

    def on_batch_end(self, data):
        self.rates.append(data["learning_rate"].item())


@pytest.mark.parametrize(("name", "lr_fn"), [
    ("step: cosine_decay(step, cycle_length=5, init_lr=0.01)", lambda step: cosine_decay(step, 5, 0.01)),
    ("epoch: cosine_decay(epoch, cycle_length=2, init_lr=0.01, start=2, warmup=True)",
     lambda epoch: cosine_decay(epoch, 2, 0.01, start=2, warmup=True)),
    ("epoch: 0.1 / epoch", lambda epoch: 0.1 / epoch),
])  # fmt: skip
def test_the_scheduler_sets_fastestimators_rates(name, lr_fn):
    note = Rates()
    estimator(lambda model: [LRScheduler(model, lr_fn), note], epochs=3).fit()
    np.testing.assert_allclose(note.rates, FIXTURE["rates"][name], rtol=2e-6)


# Where ours differs on purpose: the name says how, the fixture has what FastEstimator gives.


def test_a_rate_below_min_lr_stays_where_fastestimator_raises_it():
    assert DIFFERS["rate after a plateau from 1e-7"] == 1e-6
    trainer = estimator(epochs=99, rate=1e-7)
    trace = ReduceLROnPlateau(trainer.network.models["model"], "score", patience=1)
    ended(trace, trainer, 1.0)
    assert ended(trace, trainer, 2.0)["learning_rate"] == pytest.approx(1e-7)


def test_minus_infinity_is_never_the_best_where_fastestimator_keeps_it_for_ever():
    assert DIFFERS["early stopping takes -inf for the best"] and DIFFERS["best model saver takes -inf for the best"]
    trainer, model = estimator(epochs=99), nn.Linear(1, 1)
    for trace in (EarlyStopping("score", patience=9), BestModelSaver(model, None, "score"),
                  ReduceLROnPlateau(trainer.network.models["model"], "score")):  # fmt: skip
        ended(trace, trainer, -math.inf)
        assert not trace.best.found
        ended(trace, trainer, 3.0)
        assert trace.best.value == 3.0
