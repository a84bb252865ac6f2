"""The benchmark of convolutions: a line with small errors, and a wrong form fails it."""

import json
import sys

import mlx.core as mx
import pytest

from benchmarks import convolution as benchmark
from models import convolution_forms


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(benchmark, "SIZES", [(2, 8, 16, 16, 1, 1), (2, 8, 16, 16, 1, 2)])
    monkeypatch.setattr(sys, "argv", ["convolution.py", "--turns", "1"])


def test_a_line_a_size(capsys):
    assert benchmark.main() == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "ALL PASS" and len(lines) == 2
    plain, strided = map(json.loads, lines)
    assert plain["value"]["places"] == plain["input"]["places"] == [True] and strided["value"]["places"] == []
    assert len(strided["input"]["places"]) == 4  # phases
    for line in (plain, strided):
        for name in ("value", "input", "weights"):
            assert line[name]["mlx_ms"] > 0 < line[name]["ours_ms"] and line[name]["error"] < 3e-6


def test_a_wrong_form_fails(monkeypatch, capsys):
    right = convolution_forms.overlapped
    monkeypatch.setattr(convolution_forms, "overlapped", lambda *given: right(*given) * 1.001)
    assert benchmark.main() == 1 and "FAIL" in capsys.readouterr().out
    assert mx.default_device() == mx.Device(mx.cpu)
