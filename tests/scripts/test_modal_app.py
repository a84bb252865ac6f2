"""scripts/modal_app.py against a provider of folders: tables, files home, output, cancelling, errands, mistakes."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest
from trackio.sqlite_storage import SQLiteStorage

from scripts import modal_app
from scripts.remote import status
from tests.scripts.remote.fake import FakeProvider
from tests.scripts.remote.test_mirror import fill, names

CONFIG = """
run_name: one
trackio: {enabled: true, project: modal-app-test}
dataloaders: {train_data: {root: data/x}}
"""


@pytest.fixture
def provider(tmp_path, monkeypatch):
    """A volume with a finished run, one that is running, and an errand."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    made = FakeProvider(tmp_path / "fake")
    store = made.volume("mlx-lab").store
    rows = "".join(json.dumps({"step": step, "time": 1.0, "loss": 1.0 / step}) + "\n" for step in (10, 20))
    fill(store / "outputs/one", **{"config.yaml": CONFIG, "metrics.jsonl": rows, "trackio_run.json": '"run-afar"',
                                   "checkpoints__step_00000010.safetensors": "a" * 100,
                                   "checkpoints__step_00000020.safetensors": "b" * 200,
                                   "checkpoints__best_step_00000010.safetensors": "a" * 100})  # fmt: skip
    fill(store / "status/one", **{"output-1.log": "first\n", "output-2.log": "second\n", "output-10.log": "tenth\n"})
    for name, state, step, kind in (("one", "finished", 20, "train"), ("two", "running", 5, "train"),
                                    ("one.fid", "finished", 0, "errand")):  # fmt: skip
        told = {"id": "1", "name": name, "kind": kind, "state": state, "step": step, "attempt": 3, "gpu": "H100",
                "call": f"fc-{name}", "updated": status.now() - 90, "message": ""}  # fmt: skip
        status.write(store / status.folder(name) / "status.json", told)
    fill(store / "outputs/two", **{"config.yaml": CONFIG.replace("one", "two")})
    return made


def run(provider, *arguments: str) -> int:
    return modal_app.main(list(arguments), provider)


def test_list_shows_every_run_with_what_matters(provider, capsys):
    assert run(provider, "list") == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["one"] == ["one", "finished", "20", "3", "H100", "2", "min", "ago", "fc-one"]
    assert lines["two"][1:3] == ["running", "5"] and "one.fid" in lines
    assert run(provider, "list", "volume=other") == 0
    assert "other has no runs yet" in capsys.readouterr().out


def test_sync_brings_all_runs_but_no_checkpoints_home_and_into_the_dashboard(provider, capsys):
    assert run(provider, "sync") == 0
    assert names(Path("outputs/one")) == ["config.yaml", "metrics.jsonl", "modal.json", "trackio_run.json"]
    assert Path("outputs/two/config.yaml").exists() and not Path("outputs/one.fid").exists()
    with contextlib.closing(sqlite3.connect(SQLiteStorage.get_project_db_path("modal-app-test"))) as database:
        rows = database.execute("SELECT step, metrics FROM metrics WHERE run_id = 'run-afar' ORDER BY step").fetchall()
    assert [(step, json.loads(values)) for step, values in rows] == [(10, {"loss": 0.1}), (20, {"loss": 0.05})]
    capsys.readouterr()
    assert run(provider, "sync", "one") == 0
    assert "one: 0 new files" in capsys.readouterr().out


def test_ckpts_and_download(provider, capsys):
    assert run(provider, "ckpts", "one") == 0
    shown = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in shown] == [
        "best_step_00000010.safetensors", "step_00000010.safetensors", "step_00000020.safetensors"
    ]  # fmt: skip
    folder = Path("outputs/one/checkpoints")
    assert run(provider, "download", "one") == 0 and names(folder) == ["step_00000020.safetensors"]
    assert run(provider, "download", "one", "checkpoint=best_step_00000010.safetensors") == 0
    assert names(folder) == ["best_step_00000010.safetensors", "step_00000020.safetensors"]
    assert run(provider, "download", "one", "checkpoint=all") == 0 and len(names(folder)) == 3
    assert run(provider, "download", "one", "checkpoint=step_00000021.safetensors") == 2
    assert "nearest: step_00000020" in capsys.readouterr().err


def test_a_run_of_this_machine_is_never_written_over(provider, capsys):
    fill(Path("outputs/one"), **{"config.yaml": "mine"})
    assert run(provider, "download", "one") == 2 and "is of a run on this machine" in capsys.readouterr().err
    assert Path("outputs/one/config.yaml").read_text() == "mine" and len(names(Path("outputs/one"))) == 1


def test_a_run_that_went_on_here_is_left_alone_and_the_others_come(provider, capsys):
    assert run(provider, "download", "one") == 0
    fill(Path("outputs/one"), **{"resume-1.yaml": "", "metrics.jsonl": "gone on"})
    assert run(provider, "download", "one") == 2 and "went on here (resume-1.yaml)" in capsys.readouterr().err
    assert run(provider, "sync") == 0
    assert "one: left out." in capsys.readouterr().out and Path("outputs/two/config.yaml").exists()
    assert Path("outputs/one/metrics.jsonl").read_text() == "gone on"
    fill(provider.volume("mlx-lab").store / "outputs/one", **{"resume-1.yaml": ""})  # it was resumed there
    assert run(provider, "sync", "one") == 0 and Path("outputs/one/metrics.jsonl").read_text() != "gone on"


def test_logs_are_in_the_order_of_attempts(provider, capsys):
    provider.calls.output = "live\n"
    assert run(provider, "logs", "one", "follow=true") == 0
    assert capsys.readouterr().out == "first\nsecond\ntenth\n"  # finished: nothing to follow
    assert run(provider, "logs", "two", "follow=true") == 0
    assert capsys.readouterr().out == "live\n"


def test_ctrl_c_ends_what_is_shown(provider, monkeypatch):
    def stopped(call):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(provider.calls, "logs", stopped)
    assert run(provider, "logs", "two", "follow=true") == 130 and not provider.calls.cancelled


def test_cancel_tells_the_call_and_how_to_go_on(provider, capsys):
    assert run(provider, "cancel", "two") == 0
    assert provider.calls.cancelled == ["fc-two"] and "run_name=two resume=true" in capsys.readouterr().out
    assert run(provider, "cancel", "one") == 2 and "finished already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lst"], "nearest: list"),
        (["logs"], "logs needs 1 run, got 0"),
        (["list", "one"], "list needs no runs, got 1"),
        (["ckpts", "on"], "nearest: one"),
        (["cancel", "../x"], "'../x'"),
        (["sync", "volme=x"], "nearest: volume"),
        (["list", "volume=a/b"], "'a/b'"),
        (["benchmark", "gpu=H10"], "nearest: H100"),
        (["benchmark", "timeout=25h"], "24h"),
        (["benchmark", "cuda=11"], "one of 13, 12"),
        (["logs", "one", "follow=yes"], "'yes'"),
        (["fid", "two"], "two has no checkpoint"),
        (["fid", "one"], "evaluation.features.weights"),
        (["fid", "one", "evaluation=fdi"], "all: "),
        (["fid", "one", "evaluation=images"], "data/x is neither here nor on the volume"),
    ],
    ids=str,
)
def test_mistakes_cost_one_sentence(provider, capsys, arguments, said):
    assert run(provider, *arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and said in shown and shown.count("\n") == 1
    assert not provider.calls.specs


def test_without_arguments_the_usage_is_shown(capsys):
    assert modal_app.main([]) == 2 and modal_app.main(["--help"]) == 0
    assert "benchmark" in capsys.readouterr().out
