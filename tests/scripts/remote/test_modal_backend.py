"""Modal's own objects, made without a token, and the very function that it would call, by `.local()`."""

import contextlib
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

pytest.importorskip("modal", reason="an extra")

import modal
from modal import FunctionCall
from modal.exception import AuthError, FunctionTimeoutError, InputCancellation, NotFoundError
from modal.types import FileEntry, FileEntryType

from runtime.errors import UsageError
from scripts.remote import modal_backend
from scripts.remote.backend import Call, Entry
from scripts.remote.job import Crashed, execute
from scripts.remote.modal_backend import Modal, ModalCalls, Mounted, build, result_of
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


@pytest.mark.parametrize(
    ("raised", "state"),
    [
        (KeyboardInterrupt(), None),
        (InputCancellation(), "cancelled"),
        (FunctionTimeoutError(), "crashed"),
        (Crashed("launcher.py ended with status 1"), "crashed"),
        (OSError("disk full"), "crashed"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_ended_the_last_attempt_is_the_result(raised, state):
    class Ended:
        def get(self):
            raise raised

    found = result_of(cast(FunctionCall, Ended())) or {}
    assert found.get("state") == state and (state != "crashed" or found["message"])


def test_modals_own_errors_are_no_result_of_the_run():
    class Ended:
        def get(self):
            raise AuthError("no")

    with pytest.raises(AuthError):
        result_of(cast(FunctionCall, Ended()))


class StubVolume:
    """Modal's volume by its documented methods: paths may begin with a slash, folders are listed too."""

    def __init__(self):
        self.files: dict[str, bytes] = {}

    def hydrate(self):
        return self

    def listdir(self, path, *, recursive=False):
        if path == "/none":
            raise NotFoundError("no such path")
        assert recursive
        return [FileEntry("/a/b.txt", FileEntryType.FILE, 7, 2), FileEntry("a", FileEntryType.DIRECTORY, 7, 0)]

    def read_file(self, path):
        if path not in self.files:
            raise FileNotFoundError(path)
        yield self.files[path]

    @contextlib.contextmanager
    def batch_upload(self, force=False):
        assert force  # or a second upload of a changed file is an error
        pending: dict[str, bytes] = {}
        yield SimpleNamespace(
            put_file=lambda f, to: pending.update({to: f.read() if hasattr(f, "read") else f.read_bytes()})
        )
        self.files |= pending  # nothing is there before the batch ends


def test_a_volume_is_listed_read_and_written_by_its_documented_methods(tmp_path, monkeypatch):
    stub = StubVolume()
    monkeypatch.setattr(modal.Volume, "from_name", lambda name, **given: stub)
    volume = Modal().volume("v")
    assert volume.entries("a") == [Entry("a/b.txt", 2, 7.0)] and volume.entries("none") == []
    (tmp_path / "f").write_bytes(b"12")
    volume.upload({"x/f": tmp_path / "f", "x/g": b"3"})
    assert stub.files == {"/x/f": b"12", "/x/g": b"3"} and list(volume.read("x/f")) == [b"12"]
    with pytest.raises(FileNotFoundError):
        list(volume.read("x/none"))


@pytest.mark.parametrize("detach", [True, False])
def test_a_call_is_spawned_in_a_detached_app_and_told_before_it_is_waited_for(monkeypatch, detach):
    seen = []

    @contextlib.contextmanager
    def run(detach):
        seen.append(f"detached {detach}")
        yield
        seen.append("left")

    call = SimpleNamespace(object_id="fc-1", get=lambda: seen.append("waited") or {"state": "finished"})
    app = SimpleNamespace(run=run, get_dashboard_url=lambda: "page")
    function = SimpleNamespace(spawn=lambda **given: seen.append(given) or call)
    monkeypatch.setattr(modal_backend, "build", lambda spec: (app, function))
    result = ModalCalls().spawn({"arguments": {"job": JOB}}, detach, seen.append)
    assert seen == ["detached True", {"job": JOB}, Call("fc-1", "page"), *([] if detach else ["waited"]), "left"]
    assert result == (None if detach else {"state": "finished"})


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
