"""The step benchmark: its ratios by hand, a line a variant, and a peer that is missing."""

import argparse
import sys

import pytest

from benchmarks import step_time


def test_ratios_by_hand():
    lines = {
        "ours": {"median_ms": 12.0, "parameters": 5, "turns_ms": [10.0, 12.0, 30.0]},
        "bare": {"median_ms": 10.0, "parameters": 5, "turns_ms": [10.0, 10.0, 10.0]},
        "torch": {"median_ms": 6.0, "parameters": 4},
        "as installed": {"median_ms": 120.0, "parameters": 5},
    }
    found = step_time.ratios("mlp", lines)
    assert found["ours / bare"] == 1.2 and found["ours / torch"] == 2.0
    assert found["as installed / ours"] == 10.0 and found["bare / torch"] == pytest.approx(10 / 6, abs=1e-3)
    assert "[4, 5]" in found["warning"]
    assert step_time.ratios("mlp", {}) == {"ratios": "mlp", "loss": "fm"}


def test_every_variant_gives_a_line_and_a_missing_peer_a_sentence(tmp_path, capsys):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    given = argparse.Namespace(device="cpu", seconds=0.0, as_installed=False, peer="torch", compiled=False,
                               precision="fp32", torch_python=str(python), limit=None)  # fmt: skip
    lines = step_time.measure("mlp", "fm", given)
    assert set(lines) == {"ours", "bare"}
    for line in lines.values():
        assert line["median_ms"] >= line["best_ms"] > 0 and len(line["turns_ms"]) == line["turns"] >= 3
        assert (
            line["parameters"] == 4 * 256 + 256 + 2 * (256 * 256 + 256) + 256 * 2 + 2 and line["mlx"] and line["blas"]
        )
    assert "skipped: step_torch.py" in capsys.readouterr().err


def test_a_variant_over_its_limit_is_left_out_in_a_sentence(capsys):
    assert step_time.worker(sys.executable, "step_mlx.py", ["--model", "mlp"], 0.01) == []
    assert "skipped: step_mlx.py --model mlp was not done after 0.01 s" in capsys.readouterr().err
