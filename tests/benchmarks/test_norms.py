"""The benchmarks of the norms, run on the CPU with the kernels' formulas in the kernels' place."""

import json
import sys

import mlx.core as mx
import pytest

from benchmarks import group_norm as benchmark
from benchmarks import modulated_norm as peer
from models import group_norm, modulated_norm
from models.group_norm import GroupNorm
from runtime.errors import UsageError
from tests.models import group_norm_formulas as formulas
from tests.models import layer_norm_formulas


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

    def wrong(*arguments, **options):
        found = right(*arguments, **options)
        return 1.1 * found if isinstance(found, mx.array) else [1.1 * found[0], *found[1:]]

    monkeypatch.setattr(formulas, broken, wrong)
    assert benchmark.main() == 1
    assert "FAILED: (2, 4, 4, 96)" in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["", "forward", "backward", "tangent"])
def test_modulated_layer_norm_likewise(small, broken, monkeypatch, capsys):
    monkeypatch.setattr(modulated_norm, "MODE", "auto")  # put back afterwards
    monkeypatch.setattr(modulated_norm, "KERNELS", layer_norm_formulas)
    monkeypatch.setattr(modulated_norm, "fits", lambda x: True)
    monkeypatch.setattr(peer, "SIZES", [(5, 24)])
    if broken:
        right = getattr(layer_norm_formulas, broken)
        monkeypatch.setattr(layer_norm_formulas, broken, lambda *given: [1.1 * v for v in right(*given)])
    assert peer.main() == int(bool(broken))
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and last.startswith("FAILED: (2, 5, 24) float32" if broken else "ALL PASS")


def test_without_a_gpu_a_sentence_and_status_2(monkeypatch, capsys):
    def select(device):
        raise UsageError("device=gpu, but MLX finds no GPU here.")

    monkeypatch.setattr(benchmark, "select", select)
    monkeypatch.setattr(sys, "argv", ["group_norm.py"])
    assert benchmark.main() == peer.main() == 2
    assert capsys.readouterr().err.count("MLX finds no GPU here.\n") == 2
