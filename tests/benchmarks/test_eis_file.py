"""The benchmark from file to JSON measures every part on the measured cell."""

import time

import mlx.core as mx
import pytest

from benchmarks import eis_file
from evaluation.eis_predictor import EISParameterCompleter, ProbabilisticEISPredictor
from models.eis_predictor import EISPredictor


def test_the_whole_is_at_least_its_longest_part():
    mx.random.seed(0)
    model = EISPredictor(shape=[50, 4], hidden=16, width=16, depth=1)
    model.eval()
    completer = EISParameterCompleter(ProbabilisticEISPredictor(model, "parallel", rs=300.0))
    known = {"Rsh": 10029.0, "Ra": 988.0, "Rb": 98.9}
    line = eis_file.measure(completer, eis_file.CELL, known, 3)
    parts = {name: one["median_ms"] for name, one in line.items() if isinstance(one, dict)}
    assert set(parts) == {"whole", "read", "predict", "kramers_kronig", "fit", "verdict", "write"}
    assert line["points"] == 111 and min(parts.values()) > 0 and line["whole"]["cpu_ms"] > 0


def test_milliseconds_are_those_of_a_call():
    found = eis_file.milliseconds(lambda: time.sleep(0.005), 4)
    assert found["median_ms"] >= 5 and found["p90_ms"] >= found["median_ms"]
    with pytest.raises(ZeroDivisionError):
        eis_file.milliseconds(lambda: 1 / 0, 2)
