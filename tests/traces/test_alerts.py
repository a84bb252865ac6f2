"""Alerts: when they come, that they come once, that healthy runs have none, and where they arrive."""

import contextlib
import json
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from trackio.sqlite_storage import SQLiteStorage

import launcher
from runtime.errors import UsageError
from scripts.compose import compose
from traces.alerts import Alerts
from training.data import Data


class Run:
    """What Alerts sees of an estimator; `told` gets (step, name, text)."""

    def __init__(self, trace, scale=None, loss="ce"):
        self.trace, self.step, self.told, self.workspace = trace, 0, [], None
        self.train_step = SimpleNamespace(losses=[loss], state={} if scale is None else {"scaler": {"scale": scale}})
        self.network = SimpleNamespace(get_loss_keys=lambda: (loss,))
        trace.estimator, self.loss = self, loss

    def log(self, **values):
        self.told += [(self.step, name, text) for name, text in values.items()]

    def go(self, losses, skipped: Any = 0):
        for loss, count in zip(losses, np.broadcast_to(skipped, len(losses)), strict=True):
            self.step += 1
            self.trace.on_batch_end(Data({self.loss: np.float32(loss), "skipped": count}, "train", "", self.log))
        return [(step, name) for step, name, _ in self.told]


def healthy(kind, rng):
    fall = np.exp(-np.arange(3000) / 300)
    return {
        "falling": fall * rng.lognormal(0, 0.5, 3000),
        "about zero": 0.05 * rng.normal(size=3000),
        "negative": 5 * fall - 4 + rng.normal(size=3000),
        "near zero at last": fall**4 * rng.lognormal(0, 1, 3000),
        "a spike": np.where(np.arange(3000) == 2500, 1e6, 1.0 + 0.1 * rng.normal(size=3000)),
    }[kind]


@pytest.mark.parametrize("kind", ["falling", "about zero", "negative", "near zero at last", "a spike"])
def test_healthy_noisy_runs_have_no_alert(kind):
    for seed in range(3):
        run = Run(Alerts())
        assert run.go(healthy(kind, np.random.default_rng(seed))) == []


@pytest.mark.parametrize("sign, bound", [(1, 3.0), (-1, 1.0)])
def test_a_loss_has_diverged_after_patience_steps_above_the_bound(sign, bound):
    """best = 1: above 3; best = -1: above -1 + 2; the mean of 4 with one of 9.1 (or 7.1) more is above at once."""
    run = Run(Alerts(window=4, patience=6, every=1))
    low, high, near = sign, sign + 4 * (bound - sign) + 0.1, sign + 4 * (bound - sign) - 0.1
    assert run.go([low] * 20 + [near] + [low] * 10) == []  # a mean just below
    assert run.go([high] * 5) == []
    assert run.go([high] * 30) == [(37, "alert/diverged/ce")]  # the sixth step above
    want = f"ce has diverged: mean of its last 4 values {high:.4g}, at its best {low}"
    assert run.told[0][2] == f"warn: {want}"
    run.go([low] * 4)  # over
    assert run.go([high] * 6)[1:] == [(76, "alert/diverged/ce")]


def test_a_noisy_loss_near_zero_needs_more_than_a_multiple_of_its_best():
    """best = 0, standard deviation 1: above 2."""
    run = Run(Alerts(window=4, patience=6, every=1))
    assert run.go([-1.0, 1.0] * 10 + [0.9, 2.9] * 10) == []
    assert run.go([1.1, 3.1] * 10) != []


def test_nan_and_skipped_updates_are_one_incident_until_there_were_none_for_patience_steps():
    run = Run(Alerts(patience=20, every=5))
    run.go([1.0] * 12)
    assert run.go([float("nan")] * 2, skipped=2) == []  # steps 13 and 14
    assert run.go([1.0] * 10, skipped=2) == [(15, "alert/not_finite")]
    assert run.told[0][2] == "error: a loss or gradient is not finite: train/ce = nan, 2 updates skipped"
    run.go([1.0] * 6, skipped=3)  # within 20 steps of the last
    assert len(run.told) == 1
    run.go([1.0] * 20, skipped=3)
    assert run.go([1.0] * 5, skipped=4)[1:] == [(55, "alert/not_finite")]
    assert run.told[1][2].endswith("not finite: 1 update skipped")


def test_under_fp16_a_skipped_update_counts_once_the_scale_can_fall_no_further():
    assert Run(Alerts(), scale=2.0**14).go([1.0] * 20, skipped=3) == []
    assert Run(Alerts(), scale=1.0).go([1.0] * 20, skipped=3) == [(10, "alert/not_finite")]
    assert Run(Alerts(), scale=2.0**14).go([float("inf")] * 20, skipped=3) == [(10, "alert/not_finite")]


def test_a_loss_of_an_evaluation_that_is_infinite():
    run = Run(Alerts())
    run.trace.on_epoch_end(Data({"ce": 0.5}, "eval", "", run.log))
    assert not run.told
    run.trace.on_epoch_end(Data({"ce": float("inf")}, "eval", "", run.log))
    assert run.told == [(0, "alert/not_finite", "error: a loss or gradient is not finite: eval/ce = inf")]


def test_a_level_of_none_switches_an_alert_off():
    run = Run(Alerts(not_finite=None, diverged=None, window=4, patience=5))
    assert run.go([1.0] * 20 + [100.0] * 20 + [float("nan")] * 20, skipped=1) == []


@pytest.mark.parametrize("stop", [7, 22, 41, 55, 77, 99])
def test_a_state_taken_at_any_step_goes_on_the_same(stop):
    nan = float("nan")
    losses = [1.0] * 20 + [9.0] * 20 + [nan] * 3 + [1.0] * 17 + [nan] * 2 + [1.0] * 20 + [9.0] * 30
    skipped = np.cumsum(np.isnan(losses))
    settings: dict[str, Any] = {"window": 4, "patience": 15, "every": 10}
    whole, first, second = Run(Alerts(**settings)), Run(Alerts(**settings)), Run(Alerts(**settings))
    whole.go(losses, skipped)
    first.go(losses[:stop], skipped[:stop])
    second.trace.load_state_dict(json.loads(json.dumps(first.trace.state_dict())))
    second.step = stop
    second.go(losses[stop:], skipped[stop:])
    assert first.told + second.told == whole.told
    assert [step for step, *_ in whole.told] == [40, 50, 100]


def test_a_run_that_stalls_is_told_once_each_time(capsys):
    def told() -> str:
        """What is printed until something was, and for three more intervals."""
        said, end = "", time.monotonic() + 20
        while not said and time.monotonic() < end:
            time.sleep(0.02)
            said = capsys.readouterr().out
        time.sleep(0.3)
        return said + capsys.readouterr().out

    run = Run(Alerts(seconds=0.1))
    run.trace.on_begin(Data(mode="train"))
    assert told() == "warn: no batch has ended for 0.1 s (step 0)\n"
    run.go([1.0])
    assert told() == "warn: no batch has ended for 0.1 s (step 1)\n"
    run.trace.on_close()
    time.sleep(0.2)
    assert capsys.readouterr().out == "" and not [t for t in threading.enumerate() if t.name == "alerts"]


def test_levels_and_numbers_are_checked():
    with pytest.raises(UsageError, match="diverged must be one of info, warn, error or null, got 'loud'"):
        Alerts(diverged="loud")
    with pytest.raises(UsageError, match="factor above 1.*got 20, 50, 10, 1.0 and 600.0"):
        Alerts(factor=1.0)


@pytest.fixture
def webhook(monkeypatch):
    """What a slow webhook was sent, as a list."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            time.sleep(0.3)
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TRACKIO_WEBHOOK_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield got
    server.shutdown()


def test_a_run_of_nan_tells_its_log_its_record_the_dashboard_and_the_webhook_before_it_ends(tmp_path, webhook):
    overrides = [
        "run_name=r", "model.hidden=8", "model.depth=1", "batch_size=32", "dataloaders.train_data.size=640",
        "evaluation=none", "traces.evaluation.pictures=null", "eval_every=null", "max_steps=60", "device=cpu",
        "traces.progress.quiet=true", "compile=false", "optimizer.learning_rate=1e30", "trackio.project=alerts-test",
        "optimizer.optimizer._target_=mlx.optimizers.SGD", "~optimizer.optimizer.betas", "~optimizer.optimizer.eps",
        "~optimizer.optimizer.bias_correction", "trackio.log_every=3",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="updates in a row"):
        launcher.train(compose(overrides), tmp_path, overrides)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if "alert/not_finite" in row]
    told = row["alert/not_finite"]
    assert row["step"] == 10 and told.startswith("error: a loss or gradient is not finite: train/loss = ")
    assert f"{told} (step 10)\n" in (tmp_path / "log.txt").read_text()
    with contextlib.closing(sqlite3.connect(SQLiteStorage.get_project_db_path("alerts-test"))) as database:
        found = database.execute("SELECT run_name, level, title, text, step FROM alerts").fetchall()
        shown = [json.loads(text) for (text,) in database.execute("SELECT metrics FROM metrics")]
    text = told.removeprefix("error: ")
    assert found == [("r", "error", "not finite", text, 10)]
    assert shown and not [name for values in shown for name in values if "alert" in name]
    assert [(sent["level"], sent["text"], sent["step"]) for sent in webhook] == [("error", text, 10)]
