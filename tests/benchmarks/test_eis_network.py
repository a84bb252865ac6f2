"""The network's benchmark: what it takes for the likeliest circuit, its file, its ratios, and what it stops at."""

import json
import subprocess
import sys
from pathlib import Path
from time import sleep

import mlx.core as mx
import numpy as np
import pytest

from benchmarks import eis_network
from benchmarks.turns import timed
from models.eis_predictor import EISPredictor

ROOT = Path(__file__).parents[2]
TINY = {"hidden": 16, "width": 8, "slots": 2, "depth": 1, "mixture": 3}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("eis") / "network.npz"
    eis_network.written(path, 70, TINY)
    return path


def test_the_file_holds_the_network_its_spectra_and_what_it_says(file):
    model, batch = eis_network.stored(file, 70)
    assert len(batch["x"]) == 70 and batch["known_mask"].any() and (batch["x"][..., 3].sum(axis=1) == 0).any()
    with np.load(file) as held:
        given = [mx.array(held[f"batch/{name}"][: eis_network.PARITY]) for name in ("x", "known", "known_mask")]
        want = held["ours/log_density"]
        places = mx.array(held["batch/target"][: eis_network.PARITY])
    np.testing.assert_allclose(np.array(model.log_density(model.encode(*given), places)), want, atol=1e-5)
    for name, array in model.encoder.norms[0].parameters().items():
        assert np.ptp(np.array(array)) > 0, f"a norm's {name} is constant: a twin without it would pass"


def test_likeliest_is_the_best_of_all_cells_one_parameter_after_another(file):
    model, batch = eis_network.stored(file, 20)
    x, known, mask = (mx.array(batch[name]) for name in ("x", "known", "known_mask"))
    found = np.array(eis_network.likeliest(model, x, known, mask))
    np.testing.assert_array_equal(found[batch["known_mask"] > 0], batch["known"][batch["known_mask"] > 0])
    context = model.encode(x, known, mask)
    for i in range(5):  # by the density itself, all 12 cells tried
        tried = []
        for cell in range(12):
            places = found.copy()
            places[:, i] = cell
            tried.append(np.array(model.log_density(context, mx.array(places), within=False)[0])[:, i])
        free = batch["known_mask"][:, i] == 0
        best = np.argmax(tried, axis=0)[free]
        np.testing.assert_array_equal(np.rint(found[free, i] - 1e-3 * np.sign(found[free, i] - best)), best)
        inside = model.inside(model.cells(context, mx.array(found), i)[1][mx.array(np.flatnonzero(free))],
                              mx.array(best), i)  # fmt: skip
        heaviest = np.argmax(np.array(inside[0]), axis=1)
        centre = np.array(inside[1])[np.arange(len(best)), heaviest]
        np.testing.assert_allclose(found[free, i] - best, np.clip(centre, -0.5, 0.5), atol=1e-5)


def test_ratios_by_hand():
    lines = {
        "ours": [{"samples_s": v, "p99_ms": 3.0, "cpu_ms": 6.0, "peak_gb": 1.0} for v in (100, 400, 300)],
        "torch": [{"samples_s": v, "p99_ms": 4.0, "cpu_ms": 3.0, "peak_gb": 2.0} for v in (150, 100, 200)],
        "torch compiled": [{"samples_s": 600, "p99_ms": 3.0, "cpu_ms": 2.0, "peak_gb": 0.0}],
    }
    first, second = eis_network.ratios("train", 512, lines)
    assert first == {"ours over": "torch", "task": "train", "batch": 512, "samples_s": 2.0, "p99_ms": 0.75,
                     "cpu_ms": 2.0, "peak_gb": 0.5}  # fmt: skip
    assert (second["ours over"], second["samples_s"], second["cpu_ms"]) == ("torch compiled", 0.5, 3.0)
    assert second["peak_gb"] is None
    one = {"median_ms": 2.0, "p99_ms": 9.0, "cpu_ms": 1.0, "peak_gb": 1.0}
    (line,) = eis_network.ratios("predict", 1, {"ours": [one], "torch": [one | {"median_ms": 4.0}]})
    assert line["median_ms"] == 0.5 and line["p99_ms"] == 1.0


def test_times_of_a_call():
    calls = iter([0.01, 0.05, 0.02])
    found = timed(lambda: sleep(next(calls)), 0, calls=10)
    assert 2 <= found["median_ms"] < found["p99_ms"] and found["p99_ms"] >= 5
    assert found["cpu_ms"] < 2  # sleeping costs none


def test_a_twin_that_differs_is_named():
    line = {name: bound / 2 for name, bound in eis_network.TOLERANCES.items()}
    assert eis_network.different(line) is None
    assert "log_residual 0.1 > " in str(eis_network.different(line | {"log_residual": 0.1}))
    assert "log_density nan" in str(eis_network.different(line | {"log_density": float("nan")}))


def test_the_command_measures_both_and_stops_at_a_twin_that_differs(tmp_path, capsys, monkeypatch):
    """A stand-in for PyTorch's interpreter answers with made lines; ours are measured."""
    made = {**dict.fromkeys(eis_network.TOLERANCES, 0.0), "samples_s": 10, "p99_ms": 1.0, "cpu_ms": 1.0, "peak_gb": 1.0}
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{json.dumps(made)}'\n")
    python.chmod(0o755)
    command = [sys.executable, "benchmarks/eis_network.py", "--device", "cpu", "--hidden", "16", "--train", "4",
               "--predict", "", "--turns", "1", "--seconds", "0", "--torch-python", str(python)]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command[1:])
    monkeypatch.setattr(eis_network, "SIZES", TINY)
    monkeypatch.setattr(eis_network.Estimator, "__init__", uncompiled(eis_network.Estimator.__init__))
    monkeypatch.setattr(eis_network, "in_turns", lambda commands, turns: {
        "ours": [measured(commands["ours"])], **{name: [made] for name in commands if name != "ours"}})  # fmt: skip
    eis_network.main()
    *_, last = (json.loads(text) for text in capsys.readouterr().out.splitlines())
    assert last["ours over"] == "torch" and last["samples_s"] > 0
    python.write_text(f"#!/bin/sh\necho '{json.dumps(made | {'log_density': 1.0})}'\n")
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "the networks differ: log_density 1 > " in done.stderr


def uncompiled(init):
    """An estimator that runs the step as it is: no minutes of kernels for a few steps."""
    return lambda self, *args, **kwargs: init(self, *args, **kwargs, compile=False)


def measured(command):
    """What a worker would print, in this process."""
    return eis_network.worker(eis_network.parsed(command[2:]))


def test_predictions_are_timed_at_the_batch_asked_for(file):
    model, batch = eis_network.stored(file, 3)
    assert isinstance(model, EISPredictor)
    mx.disable_compile()
    try:
        line = eis_network.predicted(model, batch, "fp32", 0.0)
    finally:
        mx.enable_compile()
    assert 0 < line["median_ms"] <= line["p99_ms"]
