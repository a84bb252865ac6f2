"""The learning-rate range test on quadratics, whose stable rates are known: below 2 / L along a curvature L."""

import csv
import math
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from PIL import Image

import launcher
from dataloaders.pipeline import Pipeline
from runtime.errors import UsageError
from scripts.compose import compose, options
from tests.traces.small import Rows
from tests.training.by_hand import Apply
from traces.adapt.lr_finder import LRFinder, Suggestion, smoothed, suggested
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp


class Point(nn.Module):
    """A point that starts at 1 in every direction."""

    def __init__(self, count):
        super().__init__()
        self.w = mx.ones(count)
        self.b = mx.zeros(1)


def searched(folder, loss_of, count=1, steps=200, groups=(), optimizer=optim.SGD, find=None, **settings):
    """The estimator after a range test that lowers loss_of(w), and the rows that it wrote."""
    model = Point(count)
    network = Network([
        Apply(("loss",), lambda data, ctx, point: {"loss": loss_of(point.w) + 0 * point.b.sum()}, point=model),
        UpdateOp(model, "loss", optimizer, 0.5, groups=groups, name="point", **settings),
    ])  # fmt: skip
    estimator = Estimator(Pipeline(Rows(32), None, None, 8), network, None, [find or LRFinder()], max_steps=steps,
                          compile=False)  # fmt: skip
    estimator.workspace = SimpleNamespace(folder=folder)
    estimator.fit(warmup=False)
    with (folder / "lr_find.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return estimator, rows


def quadratic(curvatures):
    return lambda w: 0.5 * (mx.array(curvatures) * w * w).sum()


@pytest.mark.parametrize(("curvature", "steps"), [(1.0, 200), (30.0, 100)])
def test_losses_rates_and_both_rules_have_a_closed_form_along_one_curvature(curvature, steps, tmp_path):
    estimator, rows = searched(tmp_path, quadratic([curvature]), steps=steps)
    growth = 1e8 ** (1 / (steps - 1))
    rates = 1e-7 * growth ** np.arange(len(rows))
    expected = 0.5 * curvature * np.cumprod((1 - rates * curvature) ** 2)  # of the weights after each rate's update
    np.testing.assert_allclose([row["learning_rate"] for row in rows], rates, rtol=1e-9)
    np.testing.assert_allclose([row["loss"] for row in rows][:-30], expected[:-30], rtol=1e-3, atol=1e-12)
    found = estimator.summary.latest
    # the loss is exp(-2 L rate / ln growth), whose slope over ln rate is steepest at ln growth / 2L
    assert found["lr_find/steepest"] == pytest.approx(math.log(growth) / 2 / curvature, rel=0.15)
    # in the half of a decade up to 2 / L: what is left of the loss there is next to nothing
    assert 0.3 * 2 / curvature < found["lr_find/lowest"] < 1.3 * 2 / curvature
    assert found["lr_find/suggested"] == max(found["lr_find/steepest"], found["lr_find/lowest"] / 10)
    if curvature > 2:
        assert estimator.step < steps and "diverged" in estimator.summary.reason


@pytest.mark.parametrize("largest", [0.4, 10.0, 300.0])
def test_the_suggestion_is_stable_and_within_a_tenth_of_the_largest_stable_rate(largest, tmp_path, capsys):
    curvatures = [largest, *[largest / 20] * 20]
    estimator, _ = searched(tmp_path, quadratic(curvatures), count=21)
    rate = estimator.summary.latest["lr_find/suggested"]
    assert 0.1 * 2 / largest < rate < 2 / largest
    assert f"suggested learning rate: {rate:.2g}" in capsys.readouterr().out
    losses = []  # the same quadratic at that rate: it falls for good
    w = np.ones(21)
    for _ in range(50):
        w = w - rate * np.array(curvatures) * w
        losses.append(0.5 * (curvatures * w * w).sum())
    assert (np.diff(losses) < 0).all()


def test_a_loss_that_ends_in_nan_stops_the_run_and_is_left_out(tmp_path):
    estimator, rows = searched(tmp_path, lambda w: mx.where(w < 0, mx.array(float("nan")), w * w).sum())
    assert estimator.summary.reason == "the loss or a gradient is not finite"
    assert len(rows) == estimator.step - 2 < 198  # neither the first, which has no rate, nor the one that ended it
    assert np.isfinite([row["loss"] for row in rows]).all() and estimator.summary.latest["lr_find/suggested"] < 1


def test_updates_that_are_skipped_for_ever_end_it(tmp_path):
    def loss(w):  # finite, with a gradient that is not
        return mx.sqrt(mx.maximum(w.sum(), 2.0) - 2.0)

    estimator, _ = searched(tmp_path, loss)
    assert estimator.step == 10 and "not finite" in estimator.summary.reason


def test_a_loss_that_is_never_finite_is_told(tmp_path):
    with pytest.raises(UsageError, match="ended after 1 steps, the loss or a gradient is not finite.*find.lowest"):
        searched(tmp_path, lambda w: w.sum() * float("nan"))


def test_a_loss_that_never_falls_suggests_nothing(tmp_path, capsys):
    estimator, rows = searched(tmp_path, lambda w: 1 + 0 * w.sum(), steps=30)
    assert "no suggestion" in capsys.readouterr().out and len(rows) == 29
    assert "lr_find/suggested" not in estimator.summary.latest


def test_groups_keep_the_ratio_of_their_rates_and_schedules_are_replaced(tmp_path):
    groups = [{"match": "^b$", "learning_rate": 0.05}]
    estimator, _ = searched(tmp_path, quadratic([1.0]), steps=11, groups=groups, schedule=lambda step: 0 * step)
    other, outer = estimator.network.updates[0].groups
    for step, rate in ((0, 1e-7), (10, 10.0)):
        assert outer.rate(mx.array(step)).item() == pytest.approx(rate, rel=1e-4)
        assert other.rate(mx.array(step)).item() == pytest.approx(rate / 10, rel=1e-4)


def test_slopes_of_a_line_are_exact_and_noise_is_averaged_away():
    x = np.linspace(-3, 2, 60) ** 3 / 9  # unevenly spaced
    np.testing.assert_allclose(smoothed(x, 2 - 3 * x, 0.2)[1], -3, atol=1e-6)
    even, inner = np.linspace(0, 4, 400), slice(100, 300)
    means, slopes = smoothed(even, even**2, 0.3)
    np.testing.assert_allclose(means[inner], even[inner] ** 2 + 0.3**2, rtol=1e-3)  # E (x + e)^2
    np.testing.assert_allclose(slopes[inner], 2 * even[inner], rtol=5e-3)
    noisy = even**2 + np.random.default_rng(0).normal(size=400)
    assert np.std((smoothed(even, noisy, 0.3)[0] - means)[inner]) < 0.3


def test_descents_behind_the_minimum_do_not_count():
    rates = np.logspace(-4, 0, 81)
    fall = 3 - 2 / (1 + (1e-3 / rates) ** 2)  # from 3 to 1 about 1e-3, steepest there over log rate
    raised = fall + np.where(rates > 0.1, 50.0, 0) - np.where(rates > 0.5, 49.0, 0)
    found, _ = suggested(rates, raised, 0.1)
    assert found is not None and found.steepest == pytest.approx(1e-3, rel=0.1) and 1e-2 < found.lowest < 0.1
    assert Suggestion(1e-4, 1e-2).rate == 1e-3 and Suggestion(5e-3, 1e-2).rate == 5e-3


def test_noise_alone_suggests_nothing():
    rates, rng = np.logspace(-7, 1, 200), np.random.default_rng(0)
    found = [suggested(rates, 3 + rng.normal(size=200), 0.15)[0] for _ in range(50)]
    assert sum(one is None for one in found) > 44
    falling = 1 / (1 + rates / 1e-3)  # by one, a tenth of it noise
    found = [suggested(rates, falling + 0.1 * rng.normal(size=200), 0.15)[0] for _ in range(50)]
    assert sum(one is not None and 2e-4 < one.steepest < 5e-3 and one.lowest < 0.3 for one in found) > 44


@pytest.mark.parametrize(
    ("find", "steps", "said"),
    [
        ({"lowest": 1.0, "highest": 0.1}, 50, "0 < lowest < highest, got lowest=1.0, highest=0.1"),
        ({"width": 0.0}, 50, "width=0.0"),
        ({"diverged": 1.0}, 50, "diverged=1.0"),
        ({}, 9, "max_steps of at least 10, got 9"),
    ],
)
def test_mistakes_are_told(find, steps, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        searched(tmp_path, quadratic([1.0]), steps=steps, find=LRFinder(**find))


@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_every_optimizer_takes_it_and_nothing_is_left_to_resume(optimizer, tmp_path, capsys):
    overrides = ["run_name=t", "debug=lr_find", f"optimizer={optimizer}", "max_steps=60", "batch_size=2048",
                 "model.hidden=32", "device=cpu", "compile=false", "traces.progress.quiet=true"]  # fmt: skip
    if optimizer != "adamw":  # one picture suffices
        overrides.append("traces.find.picture=null")
    summary = launcher.train(compose(overrides), tmp_path / "t", overrides)
    said = capsys.readouterr().out
    assert 1e-5 < summary.latest["lr_find/suggested"] < 5 and "checkpoint" not in said
    written = {path.name for path in (tmp_path / "t").rglob("*") if path.is_file()}
    assert "lr_find.csv" in written and not [name for name in written if name.endswith(".safetensors")]
    if optimizer == "adamw":
        assert Image.open(tmp_path / "t" / "lr_find.png").size > (400, 300)
