"""The group norm benchmark, run on the CPU with the kernels' formulas in the kernels' place."""

import json
import sys

import mlx.core as mx
import pytest

from benchmarks import group_norm as benchmark
from models import group_norm
from models.group_norm import GroupNorm
from tests.models import group_norm_formulas as formulas


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(GroupNorm, "mode", "auto")  # put back afterwards: the benchmark sets it
    monkeypatch.setattr(group_norm, "KERNELS", formulas)
    monkeypatch.setattr(benchmark, "select", lambda device: None)
    monkeypatch.setattr(benchmark, "fits", lambda x, groups: True)
    monkeypatch.setattr(benchmark, "SIZES", [(4, 96)])
    monkeypatch.setattr(benchmark, "milliseconds", lambda function, arguments: 1.0)
    monkeypatch.setattr(sys, "argv", ["group_norm.py", "--batch", "2"])
    mx.disable_compile()
    yield
    mx.enable_compile()


def test_every_case_passes_and_has_a_line(small, capsys):
    assert benchmark.main() == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "ALL PASS" and len(lines) == 4
    for line in map(json.loads, lines):
        assert all(0 < line[name]["error"] < 0.03 and line[name]["plain_ms"] == 1 for name in benchmark.NAMES)


@pytest.mark.parametrize("broken", ["forward", "backward", "tangent"])
def test_a_wrong_kernel_fails(small, broken, monkeypatch, capsys):
    right = getattr(formulas, broken)

    def wrong(*arguments):
        found = right(*arguments)
        return 1.1 * found if isinstance(found, mx.array) else [1.1 * found[0], *found[1:]]

    monkeypatch.setattr(formulas, broken, wrong)
    assert benchmark.main() == 1
    assert "FAILED: (2, 4, 4, 96)" in capsys.readouterr().out
