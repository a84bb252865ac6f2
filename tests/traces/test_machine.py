"""The machine's values come at their steps and never make a step wait."""

import contextlib
import json
import sqlite3
import threading
import time

import mlx.core as mx
import pytest
from trackio.sqlite_storage import SQLiteStorage

import launcher
from runtime.errors import UsageError
from runtime.sensors import Linux, Macmon, Nvidia, Process
from scripts.compose import compose
from tests.traces.small import estimator
from traces import machine
from traces.machine import Machine
from traces.trace import Trace


class Counter:
    """Readings 1, 2, 3, ..., and a value that only the first has."""

    def __init__(self):
        self.count, self.closed = 0, False

    def read(self):
        self.count += 1
        return {"count": float(self.count)} | ({"first": 7.0} if self.count == 1 else {})

    def close(self):
        self.closed = True


class WaitFor(Trace):
    """Holds each step until the trace holds so many readings for its next row."""

    def __init__(self, machine, counts):
        super().__init__(mode="train")
        self.machine, self.counts = machine, counts

    def on_batch_begin(self, data):
        end = time.monotonic() + 60
        while len(self.machine.readings) < self.counts[self.estimator.step] and time.monotonic() < end:
            time.sleep(0.001)


def missing():
    raise UsageError("it is not there.")


def test_a_row_has_the_means_since_the_last_and_what_is_missing_is_told_once(capsys):
    counter = Counter()
    trace = Machine(seconds=0.002, every=2, sensors=[missing, lambda: counter])
    run = estimator([trace, WaitFor(trace, [0, 4, 0, 4])], epochs=1)
    summary = run.fit()
    rows = {row["step"]: row for row in summary.history if "machine/count" in row}
    assert sorted(rows) == [2, 4]
    first, second = rows[2]["machine/count"], rows[4]["machine/count"]
    seen = 2 * first - 1  # of 1, 2, ..., n the mean is (n + 1) / 2
    assert seen == round(seen) >= 3 and second > seen and rows[2]["machine/first"] == 7.0
    assert "machine/first" not in rows[4]
    assert capsys.readouterr().out.count("no metrics of missing: it is not there.\n") == 1
    assert counter.closed and not [thread for thread in threading.enumerate() if thread.name == "machine"]


def test_a_sensor_that_hangs_holds_neither_steps_nor_the_end_for_long(monkeypatch):
    class Stuck(Counter):
        def read(self):
            over.wait(20)
            return {}

    over = threading.Event()
    monkeypatch.setattr(machine, "GRACE", 0.2)
    run = estimator([Machine(seconds=0.001, every=1, sensors=[Stuck])], epochs=1)
    began = time.monotonic()
    run.fit()
    assert 0.2 <= time.monotonic() - began < 10
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "machine")
    over.set()


@pytest.mark.parametrize(
    "platform, device, want",
    [("linux", mx.cpu, [Process, Linux]), ("linux", mx.gpu, [Process, Linux, Nvidia]),
     ("darwin", mx.gpu, [Process, Macmon]), ("darwin", mx.cpu, [Process, Macmon])],
)  # fmt: skip
def test_sensors_go_by_platform_and_device(monkeypatch, platform, device, want):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(device))
    assert machine.here() == want


def test_numbers_are_checked():
    with pytest.raises(UsageError, match="seconds must be above 0 and every at least 1, got 0 and 50"):
        Machine(seconds=0)


def test_a_run_has_them_in_its_record_and_on_the_dashboard_by_time(tmp_path):
    overrides = [
        "run_name=r", "model.hidden=8", "model.depth=1", "batch_size=32", "dataloaders.train_data.size=640",
        "evaluation=none", "traces.evaluation.pictures=null", "eval_every=null", "max_steps=40", "device=cpu",
        "traces.progress.quiet=true", "compile=false", "trackio.project=machine-test", "trackio.log_every=10",
        "traces.machine.seconds=0.01", "save_every=null",
    ]  # fmt: skip
    launcher.train(compose(overrides), tmp_path, overrides)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    last = [row for row in rows if "machine/process_mb" in row][-1]
    assert last["machine/process_mb"] > 30 and last["machine/process_cpu_percent"] > 0
    with contextlib.closing(sqlite3.connect(SQLiteStorage.get_project_db_path("machine-test"))) as database:
        shown = [json.loads(text) for (text,) in database.execute("SELECT metrics FROM system_metrics")]
    assert shown and all("machine/process_mb" in values for values in shown)
