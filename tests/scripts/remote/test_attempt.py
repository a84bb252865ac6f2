"""What an attempt refuses before it starts anything, and that it then leaves a run of the same name alone."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.remote import child, job, status
from scripts.remote.request import digest


class Container:
    """A volume that is only a folder; counts what is asked of it."""

    def __init__(self):
        self.call, self.reloads, self.commits = "fc-1", 0, 0

    def reload(self) -> None:
        self.reloads += 1

    def commit(self) -> None:
        self.commits += 1


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch):
    def start(*given):
        raise AssertionError("a command was started")

    monkeypatch.setattr(job, "Child", start)


def attempt(mount: Path, *overrides: str, container: Container | None = None, **changes) -> tuple[dict, Container]:
    command = ["launcher.py", "run_name=t", *overrides]
    told = {"id": "new", "name": "t", "kind": "train", "command": command, "digest": digest(command[1:]), "reads": [],
            "gpu": "H100", "cuda": "13", "volume": "v", "mount": str(mount)}  # fmt: skip
    container = container or Container()
    return job.execute(told | changes, container), container


def put(mount: Path, **changes) -> Path:
    """The status of another job's run of this name."""
    path = mount / status.folder("t") / "status.json"
    status.write(path, {"id": "old", "name": "t", "state": "running", "attempt": 1, "started": 0.0, "call": "fc-0",
                        "updated": status.now(), **changes})  # fmt: skip
    return path


def test_a_run_that_lives_is_left_alone(tmp_path):
    for state in ("running", "clearing", "preempted"):
        path = put(tmp_path, state=state)
        before = path.read_text()
        result, container = attempt(tmp_path, "overwrite=true")
        assert result["state"] == "failed" and "t is running (call fc-0)" in result["message"]
        assert path.read_text() == before and container.commits == 0 and container.reloads == 1


def test_what_others_committed_after_the_mount_counts(tmp_path):
    class Stale(Container):
        def reload(self) -> None:
            put(tmp_path)

    result, _ = attempt(tmp_path, container=Stale())
    assert result["state"] == "failed" and "t is running" in result["message"]


def test_a_run_that_stands_there_is_neither_replaced_nor_continued_unasked(tmp_path):
    path = put(tmp_path, state="finished")
    (tmp_path / "outputs/t").mkdir(parents=True)
    (tmp_path / "outputs/t/config.yaml").write_text("")
    result, container = attempt(tmp_path)
    assert result["state"] == "failed" and "resume=true" in result["message"] and "overwrite=true" in result["message"]
    assert json.loads(path.read_text())["id"] == "old" and container.commits == 0


def test_a_status_grown_cold_is_no_obstacle(tmp_path):
    put(tmp_path, updated=status.now() - status.ALIVE - 1)
    with pytest.raises(AssertionError, match="a command was started"):
        attempt(tmp_path)


@pytest.mark.parametrize(("driver", "cuda", "refused"), [(579, "13", True), (580, "13", False), (550, "12", False)])
def test_an_old_driver_is_told_with_the_way_out(tmp_path, monkeypatch, driver, cuda, refused):
    monkeypatch.setattr(job, "gpu", lambda: (driver, "sm90"))
    if refused:
        result, _ = attempt(tmp_path, cuda=cuda)
        assert result["fallback"] == "12" and "--cuda 12" in result["message"]
        assert json.loads((tmp_path / "status/t/status.json").read_text())["state"] == "failed"
        return
    with pytest.raises(AssertionError, match="a command was started"):
        attempt(tmp_path, cuda=cuda)
    assert [path.name for path in (tmp_path / "cache/ptx").iterdir()] == [f"mlx-0.32.4-cuda{cuda}-sm90"]


def test_data_must_be_on_the_volume_and_whole(tmp_path):
    assert "data/x is not on the volume v" in attempt(tmp_path, reads=["data/x"])[0]["message"]
    (tmp_path / "data/x").mkdir(parents=True)
    (tmp_path / "data/x/a").write_bytes(b"12")
    status.write(tmp_path / status.manifest_of("data/x"), {"files": {"a": 2, "b/c": 5}})
    assert "1 of 2 files of data/x are not whole" in attempt(tmp_path, reads=["data/x"])[0]["message"]
    (tmp_path / "data/x/b").mkdir()
    (tmp_path / "data/x/b/c").write_bytes(b"1234")
    assert "1 of 2 files" in attempt(tmp_path, reads=["data/x"])[0]["message"]
    (tmp_path / "data/x/b/c").write_bytes(b"12345")
    with pytest.raises(AssertionError, match="a command was started"):
        attempt(tmp_path, reads=["data/x"])


def test_a_configuration_that_composes_differently_there_is_refused(tmp_path):
    assert "where it was sent" in attempt(tmp_path, digest="0")[0]["message"]


def test_a_volume_that_fails_while_the_run_goes_on_does_not_stop_it(tmp_path, monkeypatch, capsys):
    class Slow:
        """A command that is asked three times before it has ended."""

        process, asked = SimpleNamespace(returncode=0), 0

        def __init__(self, command, folder, environment):
            pass

        def ended(self, seconds):
            self.asked += 1
            return self.asked > 2

    class Failing(Container):
        def commit(self) -> None:
            super().commit()
            if self.commits == 2:
                raise RuntimeError("the volume is away")

    monkeypatch.setattr(job, "Child", Slow)
    result, container = attempt(tmp_path, container=Failing(), save_seconds=-1.0)
    assert result["state"] == "finished" and container.commits == 4  # at the start, twice while it runs, at the end
    assert capsys.readouterr().out.count("the volume is away") == 1


def test_the_gpu_is_read_from_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert child.gpu() == (None, "cpu")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '580.95.05, 9.0'\necho '580.95.05, 9.0'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert child.gpu() == (580, "sm90")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'no devices were found'\nexit 6\n")
    assert child.gpu() == (None, "cpu")
