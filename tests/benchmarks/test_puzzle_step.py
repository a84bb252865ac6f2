"""The puzzle models' step benchmark: its ratios by hand, what it runs, a tiny step, and what it stops at."""

import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from benchmarks import puzzle_step, turns
from benchmarks.puzzle_step import Through, commands, model_of, parsed, ratios, torch_options
from models.hrm import HRM
from models.trm import TRM
from runtime.errors import UsageError

TINY = ["--device", "cpu", "--precision", "fp32", "--batch", "2", "--hidden", "8", "--heads", "2", "--seconds", "0"]


def line(ms, gb, parameters=5):
    return {"median_ms": ms, "peak_gb": gb, "parameters": parameters}


def test_ratios_by_hand():
    lines = {"ours": [line(10, 1), line(30, 1), line(20, 3)], "torch": [line(40, 2)], "torch compiled": [line(10, 4)]}
    assert ratios(lines) == [
        {"ours over": "torch", "median_ms": 0.5, "peak_gb": 0.5},
        {"ours over": "torch compiled", "median_ms": 2.0, "peak_gb": 0.25},
    ]
    assert ratios({"ours": [line(1, 1)]}) == []
    with pytest.raises(UsageError, match="differ in size"):
        ratios({"ours": [line(1, 1)], "torch": [line(1, 1, 6)]})


def test_the_networks_are_those_published():
    made = {name: model_of(parsed(["--model", name])) for name in puzzle_step.MODELS}
    assert isinstance(made["hrm"], HRM) and (made["hrm"].high, made["hrm"].low, made["hrm"].prefix) == (2, 2, 1)
    for name, mixer in {"trm": "attention", "trm_mlp": "mlp"}.items():
        model = made[name]
        assert isinstance(model, TRM) and not isinstance(model, Through)
        assert (model.high, model.low, model.prefix, model.mixer) == (3, 6, 16, mixer)
        options = torch_options(parsed(["--model", name]))
        assert (options["H_cycles"], options["L_cycles"], options["puzzle_emb_len"]) == (3, 6, 16)
    options = torch_options(parsed(["--model", "hrm"]))
    assert (options["H_cycles"], options["L_cycles"], options["H_layers"], options["L_layers"]) == (2, 2, 4, 4)
    assert options["forward_dtype"] == "bfloat16" and options["batch_size"] == 768


@pytest.mark.parametrize("name", ["hrm", "trm_mlp"])
def test_a_worker_measures_its_step(name, monkeypatch):
    made = puzzle_step.Estimator.__init__
    monkeypatch.setattr(puzzle_step.Estimator, "__init__", lambda *args, **given: made(*args, **given, compile=False))
    monkeypatch.setattr(turns, "timed", lambda work, seconds, steps: {"median_ms": 1e3 * work()})
    mx.set_default_device(mx.Device(mx.cpu))
    found = puzzle_step.worker(parsed(["--model", name, *TINY]))
    assert found["variant"] == "ours" and found["batch"] == 2 and found["median_ms"] > 0
    assert found["puzzles_s"] == pytest.approx(2e3 / found["median_ms"], abs=0.1)


def test_all_variants_run_in_turns_and_the_memory_of_all_cycles_last(tmp_path, monkeypatch, capsys):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "losses.py").write_text("")
    given = ["--reference", str(tmp_path), "--torch-python", "/there/python", "--compiled", "--turns", "2"]
    monkeypatch.setattr(sys, "argv", ["puzzle_step.py", *TINY, *given, "--through", "7"])
    seen = []

    def answer(command):
        seen.append(command)
        return line(len(seen), 1)

    monkeypatch.setattr("benchmarks.turns.run", answer)
    monkeypatch.setattr(puzzle_step, "run", answer)
    puzzle_step.main()
    theirs = ["torch" in Path(command[1]).stem for command in seen]
    assert theirs == [False, True, True, False, True, True, False, False]
    assert [command[-1] for command in seen[1:3]] != ["--compile", "--compile"] and seen[2][-1] == "--compile"
    assert seen[1][0] == "/there/python" and json.loads(seen[1][seen[1].index("--options") + 1])["hidden_size"] == 8
    assert [command[-2:] for command in seen[6:]] == [["--batch", "7"], ["7", "--all-cycles"]]
    last = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [row["ours over"] for row in last] == ["torch", "torch compiled", "ours, all cycles"]
    assert last[0]["median_ms"] == round(2.5 / 3.5, 3) and last[2]["median_ms"] == round(7 / 8, 3)


def test_a_reference_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="checkout"):
        commands(parsed([*TINY, "--reference", str(tmp_path)]))
    command = [sys.executable, "benchmarks/puzzle_step.py", *TINY, "--reference", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2 and done.stderr.startswith("error: --reference must be a checkout")
