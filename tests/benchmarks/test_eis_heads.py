"""The comparison of heads and flow: scores of draws whose distribution is known, and both predictors at the prior."""

import math
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from benchmarks import eis_heads
from dataloaders.eis import Spectra
from losses.eis import CircuitLikelihood
from losses.eis_flow import CircuitFlow
from models.eis_flow import EISFlow
from models.eis_predictor import EISPredictor

SMALL = {"shape": (8, 4), "hidden": 16, "width": 8, "slots": 2, "depth": 1}


def batch(count: int) -> dict[str, mx.array]:
    found = Spectra(points=8, known=(0.5, 0, 0, 0.5)).take(np.arange(count), np.random.default_rng(0))
    return {name: mx.array(value) for name, value in found.items()}


def runs() -> dict[str, Any]:
    mx.random.seed(0)
    heads, flow = EISPredictor(**SMALL, mixture=2), EISFlow(**SMALL, flow_width=8, flow_depth=1)
    for layer in heads.cell:
        layer.weight, layer.bias = mx.zeros_like(layer.weight), mx.zeros_like(layer.bias)
    return {
        "heads": SimpleNamespace(model=heads, objective=CircuitLikelihood()),
        "flow": SimpleNamespace(model=flow, objective=CircuitFlow()),
    }


def test_draws_like_the_truth_are_honest_and_shifted_ones_are_not():
    rng = np.random.default_rng(0)
    centre, known_mask = rng.standard_normal((600, 5)), np.zeros((600, 5))
    target = centre + rng.standard_normal((600, 5))
    known_mask[:, 0], target[:, 0] = 1, 1e3  # what is known doesn't count
    rows = {"known_mask": mx.array(known_mask), "target": mx.array(target)}
    draws = centre[:, None] + rng.standard_normal((600, 200, 5))
    found = eis_heads.honesty(draws, rows)
    assert found["coverage50"] == pytest.approx(0.5, abs=0.04) and found["coverage90"] == pytest.approx(0.9, abs=0.03)
    assert found["rank_gap"] < 1.63 / math.sqrt(2400) + 1 / 200  # Kolmogorov's 1% bound, and a rank's step
    shifted = eis_heads.honesty(draws + 1, rows)
    assert shifted["coverage90"] < 0.85 and shifted["rank_gap"] > 0.2


@pytest.mark.parametrize("name", ["heads", "flow"])
def test_likelihoods_count_the_unknown_by_what_is_known(name):
    """At the prior each unknown parameter costs ln 12; heads with equal cells differ by the place in the cell."""
    data = batch(70)
    (predictor,) = eis_heads.predictors(runs()[name], [2])
    found = eis_heads.likelihoods(predictor, data)
    known = np.array(data["known_mask"]).any(axis=1)
    assert 0 < known.sum() < 70
    slack = 1e-3 if name == "flow" else 0.5
    assert found["nll_unknown"] == pytest.approx(5 * math.log(12), abs=slack)
    assert found["nll_known"] == pytest.approx(2 * math.log(12), abs=slack)
    assert found["nll"] == pytest.approx(np.where(known, found["nll_known"], found["nll_unknown"]).mean())
    drawn = np.array(predictor.draw(data, 3, mx.random.key(0)))
    assert drawn.shape == (70, 3, 5) and -0.5 <= drawn.min() and drawn.max() <= 11.5
    speeds = eis_heads.speeds(predictor, data, 2, 0.0)
    assert speeds["draws_per_s"] > 0 and speeds["latency_ms"] > 0


def test_a_flow_counts_once_for_each_number_of_steps():
    assert [p.evaluations for p in eis_heads.predictors(runs()["flow"], [1, 4])] == [2, 8]
