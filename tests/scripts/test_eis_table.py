"""The table of methods: rows, columns and file, with a small network of a run; mistakes."""

import json

import pytest

import launcher
from evaluation.statistics import folder
from scripts import eis_table
from scripts.compose import compose

TRAIN = ["run_name=t", "max_steps=2", "epochs=null", "eval_every=null", "trackio.enabled=false", "device=cpu",
         "traces.progress.quiet=true", "compile=false", "batch_size=8", "model.hidden=16",
         "evaluation=none"]  # fmt: skip

FITS = ["fit from mid-grid", "fit by projection", "fit from the truth"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    made = tmp_path_factory.mktemp("runs")
    small = ["model.width=8", "model.depth=1", "model.slots=4"]
    for name, more in (("eis_no_spectrum", []), ("eis_completion", small), ("eis_parallel", small)):
        told = [*TRAIN, f"experiment={name}", *more]
        launcher.train(compose(told), made / name, told)
    return made


def table(tmp_path, *arguments) -> dict[str, dict[str, float]]:
    out = tmp_path / "table.json"
    assert eis_table.main([*arguments, "count=20", "points=8", "device=cpu", f"out={out}"]) == 0
    return json.loads(out.read_text())["scores"]


def test_methods_on_the_grid(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = [f"checkpoint={runs / 'eis_completion'}", f"no_spectrum={runs / 'eis_no_spectrum'}"]
    rows = table(tmp_path, *arguments)
    assert list(rows) == ["chance", "network without spectrum", "fit from mid-grid", "fit by projection",
                          "network", "network + likelihood", "exact posterior"]  # fmt: skip
    for name in ("top5", "merged_top1", "completion_top1"):
        assert rows["exact posterior"][f"{name}_of_oracle"] == 1
    assert rows["exact posterior"]["nll_gap"] == 0 < rows["network"]["nll_gap"]
    assert rows["exact posterior"]["merged_top1"] > 0.4 > rows["network"]["merged_top1"]
    assert rows["network + likelihood"]["completion_nll"] < rows["network"]["completion_nll"]  # 128 of 144 are listed
    assert "top1" not in rows["network without spectrum"] and "residual_spearman" in rows["network"]
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines[:8]}) == 1 and lines[7].startswith("exact posterior")
    (kept,) = folder().glob("*.npz")
    before = kept.stat().st_mtime_ns
    assert table(tmp_path, *arguments) == rows and kept.stat().st_mtime_ns == before


def test_methods_off_the_grid(runs, tmp_path):
    rows = table(tmp_path, "grid=false", "topology=parallel", f"checkpoint={runs / 'eis_parallel'}", "samples=200")
    assert list(rows) == [*FITS, "network", "network + likelihood", "exact posterior"]
    assert rows[FITS[2]]["worst_error_of_fit"] == 1
    assert rows[FITS[1]]["residual"] == pytest.approx(rows[FITS[2]]["residual"], rel=0.02)
    assert rows["exact posterior"]["error_TER_of_fit"] < 3 < rows["network"]["error_TER_of_fit"]
    # the least of nine shares of 20 spectra, each .86 +- .08; which draws there are depends on rounding
    assert rows["exact posterior"]["least_coverage90"] >= 0.5 and rows["network + likelihood"]["effective_50%"] > 1
    assert rows["network"]["nll_gap"] > 0 == rows["exact posterior"]["nll_gap"]


MISTAKES = {"count=3": "count must be at least 20", "topology=ring": "series or", "out=t.csv": "ends in .json",
            "rs=10": "rs=10 needs grid=false", "noise=0": "noise must be above 0, got 0.0"}  # fmt: skip


@pytest.mark.parametrize("told", list(MISTAKES))
def test_mistakes(told, capsys):
    assert eis_table.main([told, "device=cpu"]) == 2
    assert MISTAKES[told] in capsys.readouterr().err


@pytest.mark.parametrize("told", ["topology=parallel", "grid=false"])
def test_a_network_of_other_circuits_is_refused(told, runs, capsys):
    assert eis_table.main([told, f"checkpoint={runs / 'eis_completion'}", "device=cpu"]) == 2
    assert f"got {told}" in capsys.readouterr().err
