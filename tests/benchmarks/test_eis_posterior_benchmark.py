"""The posterior's benchmark: an untrained network refined by the likelihood covers what it says."""

import mlx.core as mx

from benchmarks import eis_posterior
from evaluation.eis_predictor import ProbabilisticEISPredictor
from models.eis_predictor import EISPredictor


def test_an_untrained_network_is_worth_little_and_its_refinement_much():
    mx.random.seed(0)
    model = EISPredictor(shape=(30, 4), hidden=16, width=8, slots=4, depth=1, mixture=2)
    found = eis_posterior.measure(ProbabilisticEISPredictor(model, "series"), 0.01, 3, 40, 30)
    assert found["network_share"][1] < 0.1 and found["effective"][2] > 300
    assert 0.78 < found["coverage_90"] <= 1 and 0.3 < found["coverage_50"] < 0.7
    assert abs(found["top1"] - found["said"]) < 0.2 and found["count"] == 40


def test_the_likeliest_kind_of_noise_is_counted_where_it_is_right():
    mx.random.seed(0)
    model = EISPredictor(shape=(30, 4), hidden=16, width=8, slots=4, depth=1, mixture=2)
    predictor = ProbabilisticEISPredictor(model, "series", samples=300, drawn=32)
    right = [eis_posterior.measure(predictor, 0.01, 3, 4, 30, "phase", assumed)["kind_right"]
             for assumed in ("likeliest", "phase", "modulus")]  # fmt: skip
    assert right == [1, 1, 0]
