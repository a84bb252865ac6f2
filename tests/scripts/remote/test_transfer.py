"""Uploads and downloads: only what differs, never half a file, interrupted ones go on."""

import json
import os
from pathlib import Path

import pytest

from runtime.errors import UsageError
from scripts.remote import status, transfer
from scripts.remote.transfer import download, upload
from tests.scripts.remote.fake import FakeVolume
from tests.scripts.remote.test_mirror import fill, names


@pytest.fixture
def volume(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return FakeVolume(tmp_path / "store")


def everything(name: str) -> bool:
    return True


def test_an_upload_sends_what_is_missing_or_newer_and_says_what_belongs_there(volume):
    fill(Path("data/x"), a="1", b__c="22", **{".cache__z": "hidden"})
    assert upload(volume, "data/x") == 2 and upload(volume, "data/x") == 0
    assert names(volume.store / "data/x") == ["a", "b/c"]
    assert volume.json(status.manifest_of("data/x")) == {"files": {"a": 1, "b/c": 2}}
    fill(Path("data/x"), a="3")  # same size
    os.utime("data/x/a", (4e9, 4e9))
    assert upload(volume, "data/x") == 1 and (volume.store / "data/x/a").read_text() == "3"
    fill(Path("data/x"), b__c="333")
    os.utime("data/x/b/c", (1, 1))  # older, but of another size
    os.utime("data/x/a", (1, 1))
    assert upload(volume, "data/x") == 1 and (volume.store / "data/x/b/c").read_text() == "333"


def test_a_single_file_is_uploaded_too(volume):
    fill(Path("data"), weights="w")
    assert upload(volume, "data/weights") == 1 and upload(volume, "data/weights") == 0
    assert volume.json(status.manifest_of("data/weights")) == {"files": {"": 1}}


def test_a_lost_upload_goes_on_and_no_job_reads_what_is_there_so_far(volume, monkeypatch, capsys):
    monkeypatch.setattr(transfer, "FILES", 2)
    fill(Path("data/x"), **{f"f{i}": str(i) for i in range(5)})
    volume.lose_after = 4  # the list, a batch of two, half of the next
    with pytest.raises(UsageError, match="after 2 of 5 files; the same command goes on"):
        upload(volume, "data/x")
    listed = volume.json(status.manifest_of("data/x"))["files"]
    assert len(listed) == 5 > len(names(volume.store / "data/x"))
    assert upload(volume, "data/x") == 2  # f3, f4: what arrived is not sent again
    assert names(volume.store / "data/x") == [f"f{i}" for i in range(5)]
    assert "2 of 2 files sent" in capsys.readouterr().out


def test_a_run_that_was_trained_there_is_not_replaced_by_a_copy_from_here(volume, monkeypatch):
    stored(volume, metrics="1, 2 and 3")
    fill(Path("outputs/r"), metrics="1", checkpoint="c")
    assert upload(volume, "outputs/r") == 0 and (volume.store / "outputs/r/metrics").read_text() == "1, 2 and 3"
    fill(Path("outputs/s"), metrics="1", checkpoint="c")
    monkeypatch.setattr(transfer, "FILES", 1)
    volume.lose_after = 2
    with pytest.raises(UsageError, match="goes on from there"):
        upload(volume, "outputs/s")
    assert upload(volume, "outputs/s") == 1  # one that was trained here is completed


def test_nothing_to_send_is_said(volume):
    Path("data/x").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds no files"):
        upload(volume, "data/x")


def stored(volume: FakeVolume, **files: str) -> None:
    fill(volume.store / "outputs/r", **files)


def test_a_download_brings_what_differs_and_then_nothing(volume):
    stored(volume, metrics="1", checkpoints__a="aa", **{"checkpoints__.b.part": "half"})
    home = Path("outputs/r")
    assert download(volume, "r", home, everything) == ["checkpoints/a", "metrics"]
    assert download(volume, "r", home, everything) == []
    stored(volume, metrics="2")
    os.utime(volume.store / "outputs/r/metrics", (4e9, 4e9))
    assert download(volume, "r", home, everything) == ["metrics"] and (home / "metrics").read_text() == "2"
    assert names(home) == ["checkpoints/a", "metrics"]
    assert download(volume, "r", Path("b"), lambda name: not name.startswith("checkpoints/")) == ["metrics"]


def test_a_file_that_is_not_the_listed_one_is_not_taken(volume, capsys):
    stored(volume, metrics="new")
    fill(Path("outputs/r"), metrics="older")
    listed = {"metrics": [3, "0" * 32]}
    status.write(volume.store / "status/r/files.json", listed)
    assert download(volume, "r", Path("outputs/r"), everything) == []
    assert Path("outputs/r/metrics").read_text() == "older" and "changed while it was copied" in capsys.readouterr().out
    assert names(Path("outputs/r")) == ["metrics"]
    listed["metrics"][1] = transfer.hashlib.blake2b(b"new", digest_size=16).hexdigest()
    status.write(volume.store / "status/r/files.json", listed)
    assert download(volume, "r", Path("outputs/r"), everything) == ["metrics"]


def test_a_lost_or_pruned_file_leaves_no_half_one(volume, monkeypatch):
    stored(volume, a="a" * 10, b="b")
    read = volume.read

    def lost(path):
        if path.endswith("/a"):
            raise FileNotFoundError(path)
        yield from read(path)

    monkeypatch.setattr(volume, "read", lost)
    assert download(volume, "r", Path("outputs/r"), everything) == ["b"]

    def cut(path):
        yield b"aaa"
        raise ConnectionError("the connection was lost")

    monkeypatch.setattr(volume, "read", cut)
    with pytest.raises(ConnectionError):
        download(volume, "r", Path("outputs/r"), everything)
    assert names(Path("outputs/r")) == ["b"]


def test_json_that_is_missing_or_cut_short_is_empty(volume):
    assert transfer.read_json(volume, "status/r/status.json") == {}
    fill(volume.store, status__r__x='{"a": ')
    assert transfer.read_json(volume, "status/r/x") == {} and json.loads("{}") == {}
