"""scripts/trackio_delete.py on trackio's own storage: what goes, what stays, and that the list says so."""

import contextlib
import json
import re
import sqlite3

import numpy as np
import pytest
import trackio
from trackio.fragments import FragmentWriter, import_inbox_dir, metric_record
from trackio.sqlite_storage import SQLiteStorage
from trackio.utils import project_media_dir

from scripts import trackio_delete
from training.tracking import Tracker

PICTURE = np.zeros((4, 4, 3), np.uint8)


@pytest.fixture
def project(request):
    """A project of its own for each test."""
    return "delete-" + re.sub(r"\W", lambda found: str(ord(found[0])), request.node.name)


def logged(project, name, folder, steps=(1, 2)):
    """A run as the launcher logs it, with a picture a step; its id."""
    folder.mkdir(parents=True)
    tracker = Tracker(folder, project, name, {"lr": 0.1})
    tracker.start()
    for step in steps:
        trackio.Image(PICTURE)._save_media(folder / f"{step}.png")
        tracker.log(step, {"loss": 1.0 / step, "samples": f"{step}.png"})
    tracker.finish()
    return tracker.run_id


def call(project, *arguments):
    return trackio_delete.main([*arguments, f"project={project}"])


def ids(project):
    """The run ids of every table of the database."""
    with contextlib.closing(sqlite3.connect(SQLiteStorage.get_project_db_path(project))) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = set()
        for table in tables:
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            if "run_id" in columns:
                found |= {row[0] for row in database.execute(f"SELECT run_id FROM {table}")}
        return found


def picture(path):
    return {"_type": "trackio.image", "file_path": str(path)}


def insert(project, id, name, values):
    """A row of metrics as trackio stores it, JSON in a blob."""
    with contextlib.closing(sqlite3.connect(SQLiteStorage.get_project_db_path(project))) as database:
        database.execute(
            "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES (?, '2026', ?, 9, ?)",
            (id, name, json.dumps(values).encode()),
        )
        database.commit()


def media(project):
    return {path for path in project_media_dir(project).rglob("*") if path.is_file()}


def of_run(project, id):
    return trackio_delete.Store(project).pictures().get(id, set())


def test_list_shows_every_run_and_changes_nothing(project, tmp_path, capsys):
    first, second = logged(project, "one", tmp_path / "a"), logged(project, "two", tmp_path / "b", steps=(1, 2, 3))
    before = media(project)
    assert call(project, "--list") == 0
    header, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert header[0] == "name" and [(line[0], line[1], line[-1]) for line in lines] == [
        ("one", "2", first), ("two", "3", second)
    ]  # fmt: skip
    assert lines[1][2] == "3" and media(project) == before and ids(project) == {first, second}


def test_after_a_delete_list_and_storage_agree(project, tmp_path, capsys):
    gone, stays = logged(project, "one", tmp_path / "a"), logged(project, "two", tmp_path / "b")
    kept = of_run(project, stays)
    assert len(kept) == 2 and len(media(project)) == 4
    assert call(project, "one", "--yes") == 0
    assert "deleted 1 of 2 runs and files 2 " in capsys.readouterr().out
    assert ids(project) == {stays} and media(project) == kept
    assert [record["id"] for record in SQLiteStorage.get_run_records(project)] == [stays]
    assert not (project_media_dir(project) / "one").exists()
    assert (tmp_path / "a/metrics.jsonl").exists()
    assert call(project, "--list") == 0
    assert gone not in (told := capsys.readouterr().out) and stays in told


def test_of_two_runs_with_one_name_the_other_keeps_its_pictures(project, tmp_path):
    gone, stays = logged(project, "same", tmp_path / "a"), logged(project, "same", tmp_path / "b")
    kept, lost = of_run(project, stays), of_run(project, gone)
    assert len(kept) == len(lost) == 2 and {file.parent for file in kept} == {file.parent for file in lost}
    fresh = next(iter(kept)).with_name("fresh.png")  # its row may still be on its way
    fresh.write_bytes(b"x")
    assert call(project, gone, "--yes") == 0
    assert media(project) == kept | {fresh} and kept == of_run(project, stays) and ids(project) == {stays}
    assert SQLiteStorage.get_run_config(project, run_id=stays) is not None
    assert call(project, "same", "--yes") == 0
    assert not media(project) and not ids(project) and not project_media_dir(project).exists()


def test_dry_run_and_no_delete_nothing(project, tmp_path, monkeypatch, capsys):
    both = {logged(project, "lr_1", tmp_path / "a"), logged(project, "lr_2", tmp_path / "b")}
    logged(project, "other", tmp_path / "c")
    before = media(project)
    assert call(project, "lr_*", "--dry-run", "--yes") == 0
    assert "dry run: 2 of 3 runs and files 4 " in capsys.readouterr().out
    asked = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or "")
    assert call(project, "lr_*") == 0
    assert asked == ["Delete 2 runs? [y/N] "] and "nothing is deleted" in capsys.readouterr().out
    assert media(project) == before and both < ids(project)
    monkeypatch.setattr("builtins.input", lambda text: "y")
    assert call(project, "lr_*") == 0
    assert len(ids(project)) == 1 and len(media(project)) == 2


def test_a_picture_that_another_row_names_stays(project, tmp_path, capsys):
    """In a table of the other run, say; and a file that no row names goes with its folder's run."""
    gone, stays = logged(project, "one", tmp_path / "a"), logged(project, "two", tmp_path / "b")
    shared, own = sorted(of_run(project, gone))
    name = shared.relative_to(project_media_dir(project).resolve().parent)
    insert(project, stays, "two", {"t": {"_type": "trackio.table", "_value": [{"x": picture(name)}]}})
    orphan = own.parent / "orphan.png"
    orphan.write_bytes(b"x")
    assert call(project, "one", "--dry-run") == 0 and "files 2 " in capsys.readouterr().out.splitlines()[-1]
    assert call(project, "one", "--yes") == 0
    assert shared.exists() and not own.exists() and not orphan.exists()
    assert media(project) == of_run(project, stays) and len(media(project)) == 3


@pytest.mark.parametrize("name", ["..", "../../..", "files", "one"])
def test_only_the_runs_own_files_go(project, tmp_path, name):
    """Whatever a run is called, and whatever path its rows name; a run "one/1" lies in the folder of run "one"."""
    logged(project, "keep", tmp_path / "a")
    inner, saved = project_media_dir(project) / "one/1/2/x.png", project_media_dir(project) / "files/y.bin"
    outside = tmp_path / "precious.png"
    for file in (inner, saved, outside):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    link = project_media_dir(project) / "files/link.png"
    link.symlink_to(outside)
    before = media(project)
    for id, run, path in (("a", name, outside), ("a", name, "../config"), ("b", "one/1", "none"), ("a", name, link)):
        insert(project, id, run, {"p": picture(path)})
    assert call(project, "a", "--yes") == 0
    assert media(project) == before and outside.exists() and "a" not in ids(project)


def test_a_run_without_metrics_is_listed_and_goes_too(project, tmp_path, capsys):
    logged(project, "one", tmp_path / "a")
    with contextlib.closing(sqlite3.connect(SQLiteStorage.get_project_db_path(project))) as database:
        database.execute("DELETE FROM metrics")
        database.execute("INSERT INTO pending_uploads (space_id, run_id, file_path, created_at) "
                         "SELECT 's', run_id, 'x', '2026' FROM configs")  # fmt: skip
        database.commit()
    assert SQLiteStorage.get_run_records(project) == []
    assert call(project, "--list") == 0
    assert "one" in capsys.readouterr().out
    assert call(project, "one", "--yes") == 0
    assert not ids(project) and not media(project)


def test_rows_that_wait_to_be_imported_go_with_their_run(project, tmp_path):
    """trackio imports them when a dashboard starts: the deleted run would be back."""
    gone = logged(project, "one", tmp_path / "a")

    def wait(step):
        entry = {"project": project, "run": "one", "run_id": gone, "metrics": {"loss": 0.1}, "step": step,
                 "timestamp": "2026-01-01T00:00:00", "log_id": f"{project}-{step}"}  # fmt: skip
        assert FragmentWriter().write_local([metric_record(entry)])

    wait(9)
    assert [run.steps for run in trackio_delete.Store(project).runs()] == [3]
    wait(10)
    assert call(project, "one", "--yes") == 0
    import_inbox_dir()
    assert not ids(project)


@pytest.mark.parametrize(("arguments", "said"), [
    (["nome"], "nearest: one"),
    (["--list", "one"], "got --list one"),
    (["one", "two"], "got one two"),
    (["--dry-run"], "got neither"),
    (["--dryrun", "one"], "nearest: --dry-run"),
    (["one"], "--yes"),
])  # fmt: skip
def test_mistakes_are_told_and_change_nothing(project, tmp_path, monkeypatch, capsys, arguments, said):
    project = "delete-mistakes"
    if not SQLiteStorage.get_project_db_path(project).exists():
        logged(project, "one", tmp_path / "a")

    def nobody(text):
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    assert call(project, *arguments) == 2
    assert said in capsys.readouterr().err and len(ids(project)) == 1


def test_an_unknown_project_is_not_made(capsys):
    assert call("delete-mistakez", "--list") == 2
    assert "has no project 'delete-mistakez'" in capsys.readouterr().err
    assert not SQLiteStorage.get_project_db_path("delete-mistakez").exists()


@pytest.mark.parametrize(("answer", "said"), [(False, "could not delete one"), (True, "stop that run first")])
def test_a_run_that_trackio_did_not_delete_is_told(project, tmp_path, monkeypatch, capsys, answer, said):
    """False is what trackio says of a database error; rows that are there after a True came from a run that goes on."""
    logged(project, "one", tmp_path / "a")
    before = media(project)
    monkeypatch.setattr(SQLiteStorage, "delete_run", lambda *given, **named: answer)
    assert call(project, "one", "--yes") == 2
    assert said in capsys.readouterr().err and media(project) == before
