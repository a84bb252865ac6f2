"""Modal's own objects, made without a token, and the very function that it would call, by `.local()`."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("modal", reason="an extra")

from runtime.errors import UsageError
from scripts.remote.job import execute
from scripts.remote.modal_backend import Modal, ModalCalls, Mounted, build
from scripts.remote.options import Options
from scripts.remote.request import prepare
from scripts.remote.spec import build_spec
from scripts.remote.submit import spec_of
from tests.scripts.remote.fake import lay_out
from tests.scripts.remote.test_job import TINY

JOB = {"name": "x", "id": "1"}
LOCALLY = """
import json, sys
from pathlib import Path
spec = json.loads(Path(sys.argv[1]).read_text())
from scripts.remote import modal_backend
app, function = modal_backend.build(spec)
assert Path(modal_backend.__file__).is_relative_to(Path(sys.argv[2]))
print("RESULT " + json.dumps(function.local(**spec["arguments"])))
"""


@pytest.fixture(autouse=True)
def without_a_token(monkeypatch, tmp_path):
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "none"))


def test_the_specification_makes_an_app_and_a_function_that_a_container_finds_by_its_module_and_name():
    app, function = build(build_spec(Options(gpu="H100:2", secrets=("s",)), JOB))
    assert app.name == "mlx-lab-x" and repr(function) == "Function(execute)"
    assert importlib.import_module("scripts.remote.job").execute is execute  # not wrapped: a plain function


def test_without_a_token_every_call_says_so_in_one_sentence():
    volume, calls = Modal().volume("v"), ModalCalls()
    spec = build_spec(Options(), JOB)
    for ask in (
        lambda: volume.entries("x"),
        lambda: list(volume.read("x")),
        lambda: volume.upload({"a": b"1"}),
        lambda: calls.cancel("fc-1"),
        lambda: list(calls.logs("fc-1")),
        lambda: calls.spawn(spec, True, lambda call: pytest.fail("told")),
    ):
        with pytest.raises(UsageError, match="modal token new"):
            ask()
    mounted = Mounted("v")
    mounted.reload()
    mounted.commit()
    assert mounted.call == "local"


def test_a_commit_that_only_failed_to_reload_is_one(monkeypatch):
    class Volume:
        said = "there are open files preventing the operation: path data/x is open"

        def commit(self):
            raise RuntimeError(self.said)

    mounted = Mounted("v")
    monkeypatch.setattr(mounted, "_volume", Volume())
    mounted.commit()
    monkeypatch.setattr(Volume, "said", "volume not found")
    with pytest.raises(RuntimeError, match="not found"):
        mounted.commit()


def test_the_function_that_modal_would_call_trains_from_what_the_image_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = spec_of(prepare(TINY, Options()))
    spec["arguments"]["job"] |= {"mount": str(tmp_path / "vol")}
    clean = lay_out(spec, tmp_path / "image")
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    (tmp_path / "vol").mkdir()
    environment = {"PATH": "", "HOME": str(Path.home()), "PYTHONPATH": str(clean), **spec["image"]["env"]}
    environment["MODAL_CONFIG_PATH"] = str(tmp_path / "none")
    command = [sys.executable, "-W", "ignore", "-c", LOCALLY, str(tmp_path / "spec.json"), str(clean)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.split("RESULT ")[1])
    assert result["state"] == "finished" and result["step"] == 40 and result["call"] == "local"
    assert (tmp_path / "vol/outputs/t/checkpoints/step_00000040.safetensors").exists()
