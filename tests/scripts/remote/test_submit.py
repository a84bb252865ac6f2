"""Sending a run: what is uploaded and kept, what Ctrl-C and a retry with another CUDA do, what is refused."""

import json
from pathlib import Path

import pytest

from scripts.remote import status, submit
from scripts.remote.backend import Call
from tests.scripts.remote.fake import FakeProvider
from tests.scripts.remote.test_mirror import fill, names

FASHION = ["--backend", "modal", "run_name=x", "dataloaders=fashion_mnist"]


@pytest.fixture
def provider(tmp_path, monkeypatch):
    """One whose calls end at once, with the results in `answers`."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    made = FakeProvider(tmp_path / "fake")
    made.calls.answers = [{"state": "finished", "message": ""}]
    return made


def test_data_and_run_are_sent_and_where_it_is_is_kept(provider, capsys):
    fill(Path("data/fashion_mnist"), a="1", b="2")
    assert submit.main([*FASHION, "--gpu=L4", "epochs=3"], provider) == 0
    assert names(provider.volume("mlx-lab").store) == [
        "data/fashion_mnist/a", "data/fashion_mnist/b", "manifests/data%2Ffashion_mnist.json"
    ]  # fmt: skip
    (spec,) = provider.calls.specs
    assert spec["function"]["gpu"] == "L4" and spec["arguments"]["job"]["reads"] == ["data/fashion_mnist"]
    kept = json.loads(Path("outputs/x/modal.json").read_text())
    assert (kept["call"], kept["volume"], kept["gpu"]) == ("fc-1", "mlx-lab", "L4")
    assert kept["overrides"] == ["run_name=x", "dataloaders=fashion_mnist", "epochs=3"] and "/fc-1" in kept["dashboard"]
    out = capsys.readouterr().out
    assert "scripts/modal_app.py logs x" in out and "scripts/modal_app.py cancel x" in out


def test_data_that_the_volume_holds_is_not_needed_here(provider):
    assert submit.main([*FASHION, "--data-on-volume"], provider) == 0
    assert provider.calls.specs[0]["arguments"]["job"]["reads"] == ["data/fashion_mnist"]


def test_ctrl_c_leaves_the_run_alone_and_tells_how_to_find_it(provider, capsys):
    provider.calls.answers = [None]
    arguments = ["--backend", "modal", "run_name=x", "--no-detach", "--volume", "other"]
    assert submit.main(arguments, provider) == 130
    out = capsys.readouterr().out
    assert "logs x volume=other" in out and "cancel x volume=other" in out and not provider.calls.cancelled


@pytest.mark.parametrize("moment", ["upload", "spawn"])
def test_ctrl_c_before_a_run_was_sent_says_so(provider, capsys, monkeypatch, moment):
    def stopped(*given):
        raise KeyboardInterrupt

    fill(Path("data/fashion_mnist"), a="1")
    monkeypatch.setattr(provider.calls if moment == "spawn" else provider.volume("mlx-lab"), moment, stopped)
    assert submit.main(FASHION, provider) == 130
    assert "no run was sent" in capsys.readouterr().err and not Path("outputs/x/modal.json").exists()


def test_ctrl_c_after_it_was_sent_does_not_lose_it(provider, capsys, monkeypatch):
    def stopped(spec, detach, told):
        told(Call("fc-7", "https://modal.com"))
        raise KeyboardInterrupt

    monkeypatch.setattr(provider.calls, "spawn", stopped)
    assert submit.main(["--backend", "modal", "run_name=x"], provider) in (0, 130)
    assert "modal_app.py cancel x" in capsys.readouterr().out
    assert json.loads(Path("outputs/x/modal.json").read_text())["call"] == "fc-7"


def test_an_old_driver_is_met_with_cuda_12_once(provider, capsys):
    provider.calls.answers = [{"state": "failed", "message": "old driver.", "fallback": "12"},
                              {"state": "finished", "message": ""}]  # fmt: skip
    assert submit.main(["--backend", "modal", "run_name=x", "--no-detach"], provider) == 0
    first, second = provider.calls.specs
    assert "mlx[cuda13]==0.32.4" in first["image"]["uv_pip_install"]
    assert "mlx[cuda12]==0.32.4" in second["image"]["uv_pip_install"]
    assert second["arguments"]["job"]["cuda"] == "12" and "old driver." in capsys.readouterr().out


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("crashed", 1), ("failed", 2)])
def test_the_exit_status_is_the_runs(provider, state, code):
    provider.calls.answers = [{"state": state, "message": "why"}]
    assert submit.main(["--backend", "modal", "run_name=x", "--no-detach"], provider) == code


def test_a_run_of_that_name_on_the_volume_is_not_touched_unasked(provider, capsys):
    store = provider.volume("mlx-lab").store
    fill(store / "outputs/x", **{"config.yaml": ""})
    told = {"name": "x", "state": "finished", "call": "fc-0", "updated": status.now()}
    status.write(store / "status/x/status.json", told)
    send = ["--backend", "modal", "run_name=x"]
    assert submit.main(send, provider) == 2 and "resume=true" in capsys.readouterr().err
    assert submit.main([*send, "resume=true"], provider) == 0
    status.write(store / "status/x/status.json", told | {"state": "running"})
    assert submit.main([*send, "overwrite=true"], provider) == 2 and "is running" in capsys.readouterr().err
    assert len(provider.calls.specs) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run_name=x", "--gpu", "H10O"], "nearest: H100"),
        (FASHION[2:], "is not here"),
        (["epochs=1"], "run_name is missing"),
    ],
)
def test_mistakes_send_nothing(provider, capsys, arguments, said):
    assert submit.main(["--backend", "modal", *arguments], provider) == 2
    assert said in capsys.readouterr().err and not provider.calls.specs


def test_local_is_no_backend_for_these_flags(provider, capsys):
    assert submit.main(["--backend", "local", "run_name=x"], provider) == 2
    assert "leave --backend out" in capsys.readouterr().err
