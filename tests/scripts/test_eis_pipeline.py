"""The pipeline: a whole run from ground truths to a report, each mode after the other, PyTorch's way back, mistakes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from domains.eis import default_frequencies, impedance
from domains.eis_truths import ground_truths, to_unit
from scripts import eis_pipeline
from training.experiment import load_run

ROOT = Path(__file__).parents[2]
TINY = ["--n_ground_truths", "3", "--n_epochs", "2", "--samples", "40", "--batch_size", "10", "--held_out", "20",
        "--draws", "20", "--device", "cpu", "model.hidden=16", "model.width=8", "model.slots=2", "model.depth=1",
        "model.mixture=2", "traces.progress.quiet=true"]  # fmt: skip


def piped(folder, *more) -> int:
    return eis_pipeline.main([*TINY, "--out", str(folder), "--name", "p", *more])


def report(folder) -> dict:
    return json.loads((folder / "p" / "report.json").read_text())


def test_one_command_goes_from_ground_truths_to_a_report(tmp_path, capsys):
    assert piped(tmp_path, "--topology", "parallel") == 0
    found = report(tmp_path)
    assert [*found] == ["generate", "train", "evaluate", "predict"]
    assert found["generate"]["rows"] == found["generate"]["written"] == 40
    assert found["train"]["steps"] == 8 and found["train"]["engine"] == "mlx"
    assert 0 <= found["evaluate"]["eval/coverage90_TER_20"] <= 1 and np.isfinite(found["evaluate"]["eval/nll"])
    (part,) = (tmp_path / "p" / "data").glob("*.npy")
    plan = json.loads((part.parent / "data.json").read_text())
    places = np.load(part)[:, slice(*plan["columns"]["target"])]
    trained_on, held_out = (to_unit(ground_truths(3, seed)) * 11 for seed in (0, 1))
    assert {tuple(row) for row in places.round(3)} <= {tuple(row) for row in trained_on.astype("f4").round(3)}
    true = to_unit(np.array([*found["predict"]["true"].values()])) * 11
    assert np.abs(held_out - true).max(axis=1).min() < 1e-3  # split by ground truth
    said = capsys.readouterr().out
    assert "true values: Rsh" in said and "eval/coverage90_TER_20" in said
    assert (tmp_path / "p" / "prediction.png").stat().st_size > 1000
    table = np.loadtxt(tmp_path / "p" / "held_out.csv", delimiter=",", skiprows=1)
    z = impedance(np.array([*found["predict"]["true"].values()]), table[:, 0], "parallel")
    assert np.abs((table[:, 1] + 1j * table[:, 2]) / z - 1).max() < 0.06  # 1% noise


def test_modes_go_on_with_what_earlier_ones_left(tmp_path, capsys):
    assert piped(tmp_path, "--mode", "train") == 2
    assert "--mode generate" in capsys.readouterr().err
    assert piped(tmp_path, "--mode", "generate") == 0
    (part,) = (tmp_path / "p" / "data").glob("*.npy")
    first = part.read_bytes()
    assert piped(tmp_path, "--mode", "generate") == 0 and part.read_bytes() == first
    assert report(tmp_path)["generate"]["written"] == 0 and [*report(tmp_path)] == ["generate"]
    assert piped(tmp_path, "--mode", "predict") == 2  # nothing is trained
    assert piped(tmp_path, "--mode", "train") == 0 and piped(tmp_path, "--mode", "train") == 2
    assert "exists already" in capsys.readouterr().err
    part.unlink()  # judging needs no training data
    assert piped(tmp_path, "--mode", "evaluate") == 0
    frequencies = default_frequencies(9)
    z = impedance(np.array([500.0, 3e3, 2e3, 3e-6, 1e-6]), frequencies, "series")
    np.savetxt(tmp_path / "mine.csv", np.column_stack([frequencies, z.real, z.imag]), delimiter=",")
    assert piped(tmp_path, "--mode", "predict", "--file", str(tmp_path / "mine.csv")) == 0
    assert [*report(tmp_path)] == ["generate", "train", "evaluate", "predict"]
    assert "true" not in report(tmp_path)["predict"] and report(tmp_path)["predict"]["likeliest"][0]["Rsh"] > 0
    assert piped(tmp_path, "--mode", "predict", "--file", str(tmp_path / "nothing.csv")) == 2


def test_what_pytorch_learned_becomes_a_checkpoint(tmp_path, capsys):
    """A stand-in for PyTorch's interpreter adds 0.01 to every weight."""
    python, seen = tmp_path / "python", tmp_path / "seen.json"
    python.write_text(
        f"#!{sys.executable}\nimport json, sys\nimport numpy as np\n"
        "if sys.argv[1] == '-c': sys.exit(0)\n"
        "_, script, start, data, end, *options = sys.argv\nheld = np.load(start)\n"
        "np.savez(end, **{k[8:]: held[k] + 0.01 for k in held.files if k.startswith('weights/')})\n"
        "given = [held['options/' + name].item() for name in ('hidden', 'nonlinearity')]\n"
        f"json.dump([script, data, options, *given], open({str(seen)!r}, 'w'))\n"
        "print(json.dumps({'steps': 8, 'seconds': 2.0, 'samples_s': 40}))\n"
    )
    python.chmod(0o755)
    assert piped(tmp_path / "mlx", "--mode", "generate") == 0
    assert piped(tmp_path / "mlx", "--mode", "train", "max_steps=1", "optimizer.learning_rate=1e-12") == 0
    assert piped(tmp_path / "torch", "--mode", "generate") == 0
    assert piped(tmp_path / "torch", "--mode", "train", "--engine", "pytorch", "--torch_python", str(python)) == 0
    script, data, options, hidden, nonlinearity = json.loads(seen.read_text())
    assert Path(script) == ROOT / "benchmarks" / "eis_train_torch.py" and Path(script).exists()
    assert data == str(tmp_path / "torch" / "p" / "data") and (hidden, nonlinearity) == (16, "relu")
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given == {"--steps": "8", "--batch": "10", "--seed": "0", "--device": "cpu", "--rate": "0.001",
                     "--warmup": "0", "--clip": "3.0"}  # fmt: skip
    started = load_run(tmp_path / "mlx" / "p" / "run", data=False).model
    learned = load_run(tmp_path / "torch" / "p" / "run", data=False).model
    for name in ("cell", "place"):
        for ours, theirs in zip(started[name], learned[name], strict=True):
            np.testing.assert_allclose(np.array(theirs.weight), np.array(ours.weight) + 0.01, atol=1e-6)
    assert report(tmp_path / "torch")["train"] == {
        "engine": "pytorch",
        "steps": 8,
        "seconds": 2.0,
        "samples_s": 40,
        "stage_seconds": report(tmp_path / "torch")["train"]["stage_seconds"],
    }


def test_without_pytorch_a_sentence(tmp_path, capsys):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert piped(tmp_path, "--mode", "train", "--engine", "pytorch", "--torch_python", str(python)) == 2
    assert "--engine pytorch needs PyTorch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--n_ground_truths", "-1"], "n_ground_truths must be at least 0, got -1"),
        (["--samples", "0"], "samples must be at least 1, got 0"),
        (["--batch_size", "50"], "batch_size=50 exceeds samples=40"),
        (["--held_out", "3"], "held_out must be at least 20, got 3"),
        (["model.hiden=3"], "nearest: hidden"),
    ],
    ids=str,
)
def test_mistakes(tmp_path, capsys, arguments, words):
    assert piped(tmp_path, *arguments) == 2
    assert words in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_an_option_that_does_not_exist_exits_with_2():
    done = subprocess.run(
        [sys.executable, "scripts/eis_pipeline.py", "--mode", "dance"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2 and "invalid choice: 'dance'" in done.stderr
