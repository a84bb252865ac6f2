"""The comparison of ARC with other schedules: what it compares, on few steps."""

import numpy as np
import pytest

from benchmarks import arc
from scripts.arc_runs import Runs


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(arc, "CYCLES", 3)
    monkeypatch.setattr(arc, "STEPS", 8)


def test_ratios_are_those_of_the_constant_good_rate():
    rows = arc.compare(arc.flow, 0, "adam", 2)
    assert len(rows) == len(arc.STARTS) * len(arc.SCHEDULES) and rows[0]["ratio"] == 1
    constant = {row["first over good"]: row["ratio"] for row in rows if row["schedule"] == "constant"}
    assert constant[0.1] > 1 and constant[1.0] == 1


def test_runs_of_a_seed_have_the_same_weights_and_batches():
    rng = np.random.default_rng(0)
    runs = Runs(arc.kinds(rng), "sgd", 4, rng, alike=2)
    ends = arc.final(runs, np.full(4, 0.01), ["constant"] * 4, 2, rng)
    assert ends[0] == ends[1] and ends[2] == ends[3] and ends[0] != ends[2]


def test_a_run_that_diverges_counts_with_its_first_loss():
    rng = np.random.default_rng(0)
    runs = Runs(arc.autoencoder(rng), "sgd", 1, rng)
    start = runs.losses(runs.weights, *runs.held).item()
    assert arc.final(runs, np.array([1e20]), ["constant"], 1, rng)[0] == pytest.approx(start, rel=1e-5)


def test_a_plateau_takes_a_tenth_after_two_cycles():
    plateau = arc.Plateau()
    assert [plateau.multiplier(loss) for loss in (3, 2, 2, 2, 2, 1, 1)] == [1, 1, 1, 0.1, 1, 1, 1]
