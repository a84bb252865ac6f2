"""The fit benchmark: its floor and success by hand, what the network is given, ratios, and a peer's answer."""

import json
import sys

import mlx.core as mx
import numpy as np
import pytest

import launcher
from benchmarks import eis_fit
from dataloaders.eis import Spectra
from domains.eis import default_frequencies, impedance
from runtime.errors import UsageError
from scripts.compose import compose

TINY = ["model.hidden=16", "model.width=8", "model.slots=2", "model.depth=1", "model.mixture=2"]


@pytest.fixture(autouse=True)
def uncompiled():
    """No kernels for a few numbers."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.fixture
def case():
    return eis_fit.Case("parallel", 60, 0.01, 40)


def test_the_floor_is_that_of_noise_and_the_truth_is_on_it():
    many = eis_fit.Case("series", 100, 0.01, 200)
    assert many.floor.mean() == pytest.approx(0.01 * np.sqrt(np.pi / 2), rel=0.01)  # a Rayleigh variable's mean
    assert many.quality(many.truths) == {"success": 1.0, "close": 1.0, "over_floor": 1.0, "over_floor_p90": 1.0}
    place = np.log(many.truths / [10, 10, 10, 1e-7, 1e-7]) / np.log([1e3, 1e3, 1e3, 500, 500]) * 11
    assert -0.5 <= place.min() < -0.3 and 11.3 < place.max() <= 11.5  # the prior reaches half a cell beyond the grid


def test_success_counts_fits_that_are_missing_or_off(case):
    found = case.truths[:10].copy()
    found[:2] = np.nan
    found[2:5] *= 1.2
    line = case.quality(found)
    assert line["success"] == line["close"] == 0.5 and line["over_floor_p90"] is None and line["over_floor"] == 1.0
    assert case.residual(np.nan_to_num(found, nan=1.0), 10)[3] == pytest.approx(
        np.mean(np.abs(impedance(found[3], case.frequencies, "parallel") - case.z[3]) / np.abs(case.z[3]))
    )


def test_the_network_sees_what_it_sees_in_training(monkeypatch):
    batch = Spectra(topology="series", points=50).take(np.arange(7), np.random.default_rng(0))
    seen = []

    def guessed(model, x, known, known_mask):
        seen.append((model, np.array(x), np.array(known_mask)))
        return mx.array(batch["target"])

    monkeypatch.setattr(eis_fit, "likeliest", guessed)
    top1 = eis_fit.Top1("a model", default_frequencies(50))
    found = top1(batch["x"][..., 1].astype(float) + 1j * batch["x"][..., 2])
    ((model, x, mask),) = seen[:1]
    assert model == "a model" and not mask.any()
    np.testing.assert_allclose(x, batch["x"], rtol=1e-6)
    few = eis_fit.Top1("a model", default_frequencies(50), seen=8)
    few(batch["x"][..., 1].astype(float) + 1j * batch["x"][..., 2])
    np.testing.assert_allclose(seen[1][1], batch["x"][:, [0, 7, 14, 21, 28, 35, 42, 49]], rtol=1e-6)
    want = np.array([10, 10, 10, 1e-7, 1e-7]) * np.array([1e3, 1e3, 1e3, 500, 500]) ** (batch["target"] / 11)
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_ratios_and_break_even_by_hand():
    lines = {
        "lm": {"single_ms": 8.0, "batch_ms": [1.0, 1.0, 4.0], "batch_cpu_ms": [0.9, 0.8, 3.6]},
        "network": {"single_ms": 4.0, "batch_ms": 0.1, "batch_cpu_ms": 0.3},
        "network + 3 lm": {"single_ms": 16.0, "batch_ms": 2.0, "batch_cpu_ms": 0.9},
        "impedance.py": {"single_ms": 100.1},
        "projection": {"single_ms": 2.0, "batch_ms": [0.1, 0.2, 0.8], "batch_cpu_ms": [0.1, 0.2, 0.6]},
    }
    found = eis_fit.compared(lines, 90.0)
    assert found["impedance.py single_ms / network batch_ms"] == 1001.0
    assert found["lm batch_ms / network batch_ms"] == 10.0 and found["lm single_ms / network + 3 lm single_ms"] == 0.5
    assert found["lm batch_cpu_ms / network batch_cpu_ms"] == 3.0
    assert found["network pays over lm after"] == 100_000 and found["network pays over impedance.py after"] == 900
    assert found["network + 3 lm pays over lm after"] is None
    assert (
        found["lm batch_ms / projection batch_ms"] == 5.0 and found["lm batch_cpu_ms / projection batch_cpu_ms"] == 6.0
    )
    assert "projection pays over lm after" not in found
    assert not any("pays" in name for name in eis_fit.compared(lines, None))
    assert eis_fit.compared({"lm": lines["lm"]}, 90.0) == {}


def test_every_method_gives_a_line_with_a_checkpoint_and_a_peer(tmp_path, capsys, monkeypatch):
    overrides = ["run_name=r", "experiment=eis_series", "batch_size=8", "epochs=null", "max_steps=1", "compile=false",
                 "trackio.enabled=false", "dataloaders.eval_data.size=8", "eval_every=1s", "save_every=1s",
                 "device=cpu", "traces.progress.quiet=true", *TINY]  # fmt: skip
    launcher.train(compose(overrides), tmp_path / "r", overrides)
    capsys.readouterr()
    mx.disable_compile()  # the estimator has switched it on again
    case = eis_fit.Case("series", 60, 0.01, 6)
    answer = {"seconds": [0.1, 0.3, 0.2], "parameters": [case.truths[0].tolist(), None, case.truths[2].tolist()]}
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [
        "eis_fit.py", "--count", "6", "--singles", "2", "--points", "60", "--noise", "0.01", "--series",
        str(tmp_path / "r"), "--impedance-python", str(python), "--peer-count", "3"])  # fmt: skip
    eis_fit.main()
    _, *lines = (json.loads(text) for text in capsys.readouterr().out.splitlines())
    series = {line["method"]: line for line in lines if line.get("topology") == "series" and "method" in line}
    assert [*series] == ["lm", "projection", *eis_fit.STARTED, "impedance.py", "impedance.py from the network"]
    assert series["lm"]["success"] == 1 and 0.9 < series["lm"]["over_floor"] < 1
    assert series["projection"]["success"] == 1 and series["projection"]["over_floor"] < 1.02
    assert series["network + 3 lm"]["over_floor"] < series["network"]["over_floor"]
    theirs = series["impedance.py"]
    assert theirs["single_ms"] == 200 and theirs["single_per_s"] == 5 and theirs["success"] == 0.6667
    ratios = next(line for line in lines if line.get("ratios", {}).get("topology") == "series")
    assert ratios["network pays over impedance.py after"] >= 0
    assert {line["method"] for line in lines if line.get("topology") == "parallel"} == {
        "lm", "projection", "impedance.py"}  # fmt: skip
    with pytest.raises(UsageError, match="is a network of series circuits"):
        eis_fit.opened(str(tmp_path / "r"), "parallel", "cpu")
