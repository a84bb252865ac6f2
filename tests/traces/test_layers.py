"""The profile of a step by layers: its sum, its files, and that it changes nothing."""

import csv
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest

import launcher
from runtime.errors import UsageError
from runtime.layer_clock import OUTSIDE, REST, Entry, Span
from runtime.roofline import Roof
from runtime.slots import snapshot
from runtime.work import Work
from scripts.compose import compose
from tests.traces.small import estimator
from traces.layers import COLUMNS, LayerProfile, chrome_trace, row
from training.tracing import eager

QUICK = {"runtime.roofline.SIDES": {"cpu": 64}, "runtime.roofline.NUMBERS": {"cpu": 2**16}}


@pytest.fixture(autouse=True)
def quick_roof(monkeypatch):
    for name, value in QUICK.items():
        monkeypatch.setattr(name, value)


def profiled(folder, **options):
    trace = LayerProfile(repeats=2, **options)
    trainer = estimator([trace], epochs=1)
    trainer.workspace = SimpleNamespace(folder=folder)
    trainer.fit()
    return trainer, trace


def test_the_parts_add_up_to_the_step_and_the_files_hold_them(tmp_path, capsys):
    trainer, trace = profiled(tmp_path)
    values = trainer.summary.latest
    assert values["profile/layers/sum_ms"] == pytest.approx(values["profile/layers/step_ms"], rel=0.1)
    with (tmp_path / "layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    own = [float(one["forward_ms"]) + float(one["backward_ms"]) for one in rows]
    assert own == sorted(own, reverse=True) and sum(own) == pytest.approx(values["profile/layers/sum_ms"])
    assert sum(float(one["share"]) for one in rows) == pytest.approx(1)
    by_name = {one["layer"]: one for one in rows}
    assert {"model", "model.layer", REST} < set(by_name)
    # batch 8: 16 numbers to 3 classes; the data have no gradient
    assert float(by_name["model.layer"]["gflop"]) == pytest.approx(1e-9 * 2 * (2 * 8 * 16 * 3 + 8 * 3))
    assert by_name[REST]["gflop"] == "" and by_name["model.layer"]["calls"] == "1"
    said = capsys.readouterr().out
    assert f"sum of the parts {values['profile/layers/sum_ms']:.2f} ms" in said and "model.layer" in said
    events = [e for e in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if e["ph"] == "X"]
    assert sum(e["dur"] for e in events if e["tid"] == 2) == pytest.approx(1e3 * values["profile/layers/sum_ms"])
    assert {e["name"] for e in events if e["tid"] == 1} == {"model", "model.layer"}


class Late:
    """A step that takes 50 ms longer, in no layer."""

    def __init__(self, step):
        self.step, self.state, self.dtype = step, step.state, step.dtype

    def __call__(self, *args):
        time.sleep(0.05)
        return self.step(*args)


def test_no_time_of_the_step_is_lost(tmp_path, monkeypatch):
    trace = LayerProfile(repeats=2)
    trainer = estimator([trace], epochs=1)
    trainer.workspace = SimpleNamespace(folder=tmp_path)
    monkeypatch.setattr("traces.layers.eager", lambda step: Late(eager(step)))
    trainer.fit()
    values = trainer.summary.latest
    assert 50 < values["profile/layers/step_ms"] and 50 < values["profile/layers/uncompiled_ms"]
    assert values["profile/layers/sum_ms"] == pytest.approx(values["profile/layers/step_ms"], rel=0.1)
    assert trace.entries[OUTSIDE].seconds["forward"] > 0.05


def test_a_profile_changes_nothing(tmp_path):
    with_profile, _ = profiled(tmp_path)
    plain = estimator([], epochs=1)
    plain.fit()
    a, b = (snapshot(one.train_step.state) for one in (with_profile, plain))
    assert a.keys() == b.keys() and with_profile.step == plain.step == 4
    for path in a:
        np.testing.assert_array_equal(np.array(a[path]), np.array(b[path]), err_msg=path)


def test_only_the_longest_rows_are_printed(tmp_path, capsys):
    _, trace = profiled(tmp_path, rows=1)
    said = capsys.readouterr().out
    assert f"{len(trace.entries) - 1} more in " in said


def test_a_row_compares_its_time_with_the_roof():
    entry = Entry()
    entry.seconds |= {"forward": 0.5, "backward": 1.5}
    entry.work |= {"forward": Work(10, 30), "backward": Work(20, 20)}
    entry.calls = 3
    found = dict(zip(COLUMNS, row("a", entry, 8.0, Roof(flops=30.0, bandwidth=100.0)), strict=True))
    assert found == {"layer": "a", "calls": 3, "forward_ms": 500.0, "backward_ms": 1500.0, "share": 0.25,
                     "gflop": 30e-9, "mb": 50e-6, "of_roof": 0.5}  # fmt: skip


def test_a_chrome_trace_starts_at_zero_and_nests_calls():
    spans = [Span("a.b", "forward", 10.2, 0.3), Span("a.b", "call", 10.2, 0.3), Span("a", "call", 10.0, 1.0)]
    events = chrome_trace(spans)["traceEvents"]
    assert [event["ph"] for event in events] == ["M", "M", "X", "X", "X"]
    outer, *inner = [event for event in events if event["ph"] == "X"]
    assert (outer["name"], outer["ts"], outer["dur"], outer["tid"]) == ("a", 0.0, 1e6, 1)
    for event in inner:
        assert event["ts"] == pytest.approx(2e5) and event["dur"] == pytest.approx(3e5)


def test_mistakes_are_told():
    with pytest.raises(UsageError, match="at least 1, got 0 and 5"):
        LayerProfile(repeats=0, rows=5)


@pytest.mark.parametrize("extra", [["loss=meanflow", "solver=average", "precision=bf16"], ["accumulate=2"]])
def test_it_takes_any_step(extra, tmp_path):
    overrides = ["run_name=t", "debug=profile", "max_steps=2", "traces.profile.skip=0", "device=cpu", "compile=false",
                 "batch_size=16", "model.hidden=8", "traces.layers.repeats=1", *extra]  # fmt: skip
    summary = launcher.train(compose(overrides), tmp_path / "t", overrides)
    latest = summary.latest
    assert latest["profile/layers/sum_ms"] == pytest.approx(latest["profile/layers/step_ms"], rel=0.1)
