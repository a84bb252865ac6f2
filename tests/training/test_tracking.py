"""The record and the dashboard's rows stay those of an uninterrupted run, whatever either lost or wrote too much."""

import contextlib
import json
import shutil
import sqlite3

import pytest
from trackio.sqlite_storage import SQLiteStorage

from runtime.errors import UsageError
from training.tracking import Tracker


def dashboard(tracker):
    with contextlib.closing(sqlite3.connect(SQLiteStorage.get_project_db_path(tracker.project))) as database:
        found = database.execute("SELECT step, metrics FROM metrics WHERE run_id = ? ORDER BY step", (tracker.run_id,))
        return [(step, json.loads(metrics)) for step, metrics in found]


def record(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row.pop("step"), {k: v for k, v in row.items() if k != "time"}) for row in rows]


def tracker(folder, name="one", project="tracking-test"):
    folder.mkdir(exist_ok=True)
    return Tracker(folder, project, name, {"lr": 0.1, "_target_": "x"})


def log(to, first, last):
    for step in range(first, last + 1):
        to.log(step, {"loss": 1.0 / step})
        to.log(step, {"rate": 0.5})


WANT = [(step, {"loss": 1.0 / step, "rate": 0.5}) for step in range(1, 9)]


def test_a_step_has_one_row_in_both_records(tmp_path):
    one = tracker(tmp_path / "a")
    one.start()
    log(one, 1, 8)
    one.finish()
    assert record(tmp_path / "a") == WANT == dashboard(one)


@pytest.mark.parametrize("damage", ["ran ahead", "lost its queue", "cut line", "another run of that name"])
def test_after_a_kill_both_records_are_made_whole(tmp_path, damage):
    folder = tmp_path / "a"
    one = tracker(folder, damage.replace(" ", "-"))
    one.start()
    log(one, 1, 5)
    kept = json.loads(json.dumps(one.state()))  # a checkpoint at step 5, whose row is still open
    log(one, 6, 7)
    one.finish()
    if damage == "lost its queue":
        with contextlib.closing(sqlite3.connect(SQLiteStorage.get_project_db_path(one.project))) as database:
            database.execute("DELETE FROM metrics WHERE run_id = ? AND step >= 3", (one.run_id,))
            database.commit()
    if damage == "cut line":
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"step": 8, "lo')
    if damage == "another run of that name":
        other = tracker(tmp_path / "b", one.name)
        other.start()
        log(other, 1, 2)
        other.finish()
    two = tracker(folder, one.name)
    two.start(kept)
    assert two.run_id == one.run_id
    log(two, 6, 8)
    two.finish()
    assert record(folder) == WANT == dashboard(two)
    if damage == "another run of that name":
        assert [step for step, _ in dashboard(other)] == [1, 2]


def test_what_the_end_of_a_training_logged_stays_when_it_goes_on(tmp_path):
    one = tracker(tmp_path / "a", "extended")
    one.start()
    log(one, 1, 5)
    kept = json.loads(json.dumps(one.state()))  # the last checkpoint, before samples are judged
    one.log(5, {"eval/distance": 0.25})
    one.finish()
    two = tracker(tmp_path / "a", "extended")
    two.start(kept)
    log(two, 6, 8)
    two.finish()
    rows = [(step, values | {"eval/distance": 0.25} if step == 5 else values) for step, values in WANT]
    assert record(tmp_path / "a") == rows == dashboard(two)


def test_a_copy_goes_on_in_a_run_of_its_own(tmp_path):
    one = tracker(tmp_path / "a", "first")
    one.start()
    log(one, 1, 5)
    kept = json.loads(json.dumps(one.state()))
    log(one, 6, 7)
    one.finish()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    two = tracker(tmp_path / "b", "copy")
    two.start(kept | {"run_id": None})
    log(two, 6, 8)
    two.finish()
    assert two.run_id != one.run_id and record(tmp_path / "b") == WANT == dashboard(two)
    assert dashboard(one) == WANT[:7]


def test_the_record_of_another_machine_is_taken_as_it_is_however_often(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    rows = [{"step": step, "time": 1.0, "loss": 1.0 / step, "rate": 0.5} for step in range(1, 9)]

    def replay(rows, rest=""):
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + rest)
        home = tracker(folder, "from-afar", "new-on-this-machine")
        home.replay("run-of-another-machine")
        return dashboard(home)

    assert replay(rows[:5], rest='{"step": 6, "lo') == WANT[:5]
    assert replay(rows) == WANT == replay(rows)
    changed = [
        *rows[:6],
        rows[6] | {"loss": 3.0},
    ]  # resumed there from step 6: step 7 came out otherwise, 8 is still due
    assert replay(changed) == [*WANT[:6], (7, {"loss": 3.0, "rate": 0.5})]
    assert json.loads((folder / "trackio_run.json").read_text()) == "run-of-another-machine"


def alerts(tracker):
    with contextlib.closing(sqlite3.connect(SQLiteStorage.get_project_db_path(tracker.project))) as database:
        query = "SELECT step, title, level, text FROM alerts WHERE run_id = ? ORDER BY step"
        return database.execute(query, (tracker.run_id,)).fetchall()


@pytest.mark.parametrize("lost", [False, True])
def test_alerts_after_a_kill_are_those_of_the_rows(tmp_path, lost):
    def log(to, steps):
        for step in steps:
            to.log(step, {"loss": 1.0})
            if step in (2, 5, 7):
                to.log(step, {"alert/not_finite": f"warn: loss is nan at {step}"})

    one = tracker(tmp_path / "a", f"alerts-{lost}")
    one.start()
    log(one, range(1, 6))
    kept = json.loads(json.dumps(one.state()))
    log(one, range(6, 9))
    one.finish()
    want = [(step, "not finite", "warn", f"loss is nan at {step}") for step in (2, 5, 7)]
    assert alerts(one) == want
    if lost:
        with contextlib.closing(sqlite3.connect(SQLiteStorage.get_project_db_path(one.project))) as database, database:
            database.execute("DELETE FROM alerts WHERE run_id = ?", (one.run_id,))
    two = tracker(tmp_path / "a", one.name)
    two.start(kept)
    assert alerts(two) == want[:2]
    log(two, range(6, 9))
    two.finish()
    assert alerts(two) == want
    far = tracker(tmp_path / "a", one.name, "alerts-elsewhere")
    far.replay(f"{one.run_id}-replayed")
    far = tracker(tmp_path / "a", one.name, "alerts-elsewhere")
    far.replay(f"{one.run_id}-replayed")  # however often
    assert alerts(far) == want and dashboard(far)[4] == (5, {"loss": 1.0})


def test_a_setting_that_trackio_refuses_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_WEBHOOK_MIN_LEVEL", "loud")
    with pytest.raises(UsageError, match="trackio does not start: Invalid alert level 'loud'. Expected one of: info"):
        tracker(tmp_path / "a").start()
