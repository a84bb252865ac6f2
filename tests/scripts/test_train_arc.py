"""Where ARC's examples come from: stacked runs beside single ones, and what an example says."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from optimizers.arc_network import FACTORS, POINTS
from scripts import arc_runs, train_arc
from scripts.arc_runs import FAMILIES, USUAL, Runs, curve, digits, group, parts, plane
from training import checkpoint

MAKERS = {
    "sgd": lambda rate: optim.SGD(rate),
    "momentum": lambda rate: optim.SGD(rate, momentum=0.9),
    "adam": lambda rate: optim.Adam(rate, betas=[0.9, 0.99], bias_correction=True),
}


@pytest.mark.parametrize(("family", "optimizer"), [(plane, "sgd"), (curve, "momentum"), (plane, "adam")])
def test_stacked_runs_are_single_ones_side_by_side(family, optimizer):
    rng = np.random.default_rng(3)
    task = family(rng)
    runs = Runs(task, optimizer, 3, rng)
    rates, rows = np.array([0.01, 1e30, 0.03]), rng.integers(len(task.train[0]), size=(4, 3, 8))  # one run diverges
    weights = [[leaf[run] for leaf in runs.weights] for run in range(3)]
    train, evals = runs.cycle(rates, rows, 2)
    assert train.shape == (3, 4) and evals.shape == (3, 2)
    for run in (0, 2):

        def loss(leaves, x, y):
            for place in range(0, len(leaves), 2):
                x = (nn.relu(x) if place else x) @ leaves[place] + leaves[place + 1]
            return nn.losses.mse_loss(x, y) if task.regression else nn.losses.cross_entropy(x, y).mean()

        leaves, maker = weights[run], MAKERS[optimizer](float(rates[run]))
        for step in range(4):
            x, y = (mx.array(part[rows[step, run]]) for part in task.train)
            value, gradients = mx.value_and_grad(loss)(leaves, x, y)
            assert value.item() == pytest.approx(train[run, step], rel=1e-4)
            leaves = maker.apply_gradients(dict(enumerate(gradients)), dict(enumerate(leaves)))
            leaves = [leaves[place] for place in range(len(gradients))]
        assert loss(leaves, *map(mx.array, task.held)).item() == pytest.approx(evals[run, -1], rel=1e-4)


def test_the_small_convolutional_network_is_one():
    rng = np.random.default_rng(0)
    task = next(task for task in (digits(rng) for _ in range(20)) if task.patches)
    runs = Runs(task, "sgd", 2, rng)
    images, labels = task.held
    kernel, bias, *dense = (leaf[1] for leaf in runs.weights)
    centre = images.reshape(-1, 6, 6, 3, 3)  # all 3 x 3 neighbourhoods, from which the image is read again
    whole = np.zeros((len(images), 8, 8, 1), np.float32)
    for i in range(6):
        for j in range(6):
            whole[:, i : i + 3, j : j + 3, 0] = centre[:, i, j]
    x = nn.relu(mx.conv2d(mx.array(whole), kernel.T.reshape(-1, 3, 3, 1)) + bias)
    x = x.reshape(-1, 3, 2, 3, 2, x.shape[-1]).mean(axis=(2, 4)).reshape(len(images), -1)
    x = nn.relu(x @ dense[0] + dense[1]) @ dense[2] + dense[3]
    expected = nn.losses.cross_entropy(x, mx.array(labels)).mean().item()
    assert runs.losses(runs.weights, *runs.held)[1].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("way", range(3))
def test_an_examples_losses_are_those_that_come(way):
    examples = list(group(plane, 4, 4, lambda history, ends, rng: np.full(4, way), np.random.default_rng(7)))
    by_cycle = [examples[start : start + 4] for start in range(0, len(examples), 4)]
    assert len(by_cycle) == 3 and [len(example.cycles) for example in examples] == [1] * 4 + [2] * 4 + [3] * 4
    for before, after in zip(by_cycle, by_cycle[1:], strict=False):
        for old, new in zip(before, after, strict=True):
            assert new.cycles[-1].evals[-1] == pytest.approx(old.losses[way], rel=1e-6)
            assert new.cycles[-1].rate == pytest.approx(old.cycles[-1].rate * FACTORS[way])


@pytest.mark.parametrize("way", range(3))
def test_a_run_goes_on_from_the_way_chosen(way, monkeypatch):
    asked, first = [], []

    class Noted(Runs):
        def cycle(self, rates, rows, evaluations):
            first[:] = first or [list(self.weights), [list(part) for part in self.moments], self]
            asked.append((rates, rows, evaluations))
            return super().cycle(rates, rows, evaluations)

    monkeypatch.setattr(arc_runs, "Runs", Noted)
    monkeypatch.setattr(arc_runs, "USUAL", {name: rate / 20 for name, rate in USUAL.items()})  # none diverges
    examples = list(group(curve, 4, 4, lambda history, ends, rng: np.full(4, way), np.random.default_rng(0)))
    assert len(examples) == 12
    weights, moments, alone = first
    alone.weights, alone.moments, alone.number = weights, moments, 0
    for number, (rates, rows, evaluations) in enumerate(list(asked)):
        chosen = slice(way * 4, way * 4 + 4) if number else slice(4)
        _, evals = Runs.cycle(alone, rates[chosen], rows[:, chosen], evaluations)
        if number:
            told = [example.losses[way] for example in examples[number * 4 - 4 : number * 4]]
            np.testing.assert_allclose(evals[:, -1], told, rtol=1e-4)


def test_costs_are_held_and_a_change_costs():
    losses = np.array([[1.0, 1.0, 1.0], [np.inf, 1.1, 1.0], [1.0, 1.001, 2.0]])
    margin, worst = train_arc.MARGIN, train_arc.WORST
    expected = [[margin, 0, margin], [worst + margin, np.log(1.1), margin], [margin, np.log(1.001), worst + margin]]
    np.testing.assert_allclose(train_arc.costs(losses), expected, rtol=1e-9)
    assert train_arc.costs(losses).argmin(1).tolist() == [1, 2, 1]


def test_parts_are_means():
    assert parts(np.arange(2.0 * POINTS)) == (np.arange(POINTS) * 2 + 0.5).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns(family):
    rng = np.random.default_rng(1)
    runs = Runs(family(rng), "adam", 2, rng)
    before = np.array(runs.losses(runs.weights, *runs.held))
    rows = rng.integers(len(runs.x), size=(40, 2, 32))
    _, evals = runs.cycle(np.array([0, USUAL["adam"]]), rows, 1)
    assert evals[0, -1] == pytest.approx(before[0]) and evals[1, -1] < 0.97 * before[1]


def test_the_script_writes_what_arc_reads_and_goes_on_with_its_examples(tmp_path, monkeypatch):
    monkeypatch.setattr(train_arc, "RUNS", 2)
    monkeypatch.setattr(train_arc, "BATCH", 8)
    monkeypatch.setattr(train_arc, "FAMILIES", (plane,))
    out = tmp_path / "arc.safetensors"
    arguments = [f"out={out}", "groups=2", "epochs=1", f"folder={tmp_path / 'examples'}"]
    train_arc.work(arguments)
    made, meta = checkpoint.load(out)
    assert len(list((tmp_path / "examples").iterdir())) == 3 and meta["examples"] > 20
    monkeypatch.setattr(train_arc, "group", None)
    train_arc.work(arguments)
    again, _ = checkpoint.load(out)
    for name in made:
        np.testing.assert_allclose(
            np.array(made[name]), np.array(again[name]), atol=1e-3, err_msg=name
        )  # sums in any order
