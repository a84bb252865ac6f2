"""A run's folder and its copy on the volume: what a kill at any moment leaves can be resumed."""

import os
from pathlib import Path

import pytest

from scripts.remote import mirror
from scripts.remote.mirror import Mirror


def fill(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def pair(tmp_path):
    fill(tmp_path / "disk", metrics="1", checkpoints__step_1="one", samples__a="a", log="l")
    made = Mirror(tmp_path / "disk", tmp_path / "volume")
    made.save()
    return made


def test_copies_what_is_new_removes_what_is_gone_and_leaves_the_rest(pair):
    unchanged = (pair.volume / "log").stat().st_ino
    fill(pair.disk, metrics="12", checkpoints__step_2="two")
    (pair.disk / "checkpoints/step_1").unlink()
    fill(pair.disk, **{".lock": "", "summary.tmp": "half", "checkpoints__.step_3.part": "half"})
    pair.save()
    assert names(pair.volume) == ["checkpoints/step_2", "log", "metrics", "samples/a"] == sorted(pair.digests)
    assert (pair.volume / "metrics").read_text() == "12" and (pair.volume / "log").stat().st_ino == unchanged
    assert pair.digests["metrics"][0] == 2 and len(pair.digests["metrics"][1]) == 32


def test_the_record_is_copied_before_checkpoints_and_old_ones_go_last(pair, monkeypatch):
    fill(pair.disk, metrics="12", checkpoints__step_2="two", zebra="z")
    (pair.disk / "checkpoints/step_1").unlink()
    order, copy = [], mirror._copy

    def watched(source, target):
        order.append(source.name)
        assert (pair.volume / "checkpoints/step_1").exists()
        return copy(source, target)

    monkeypatch.setattr(mirror, "_copy", watched)
    pair.save()
    assert order == ["metrics", "zebra", "step_2"]


def test_a_kill_within_a_copy_leaves_the_old_file_whole(pair, monkeypatch):
    fill(pair.disk, checkpoints__step_1="another")

    def killed(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(mirror.shutil, "copystat", killed)
    with pytest.raises(KeyboardInterrupt):
        pair.save()
    assert (pair.volume / "checkpoints/step_1").read_text() == "one"
    assert "checkpoints/.step_1.part" in names(pair.volume)
    fresh = Mirror(pair.disk.parent / "elsewhere", pair.volume)
    monkeypatch.undo()
    fresh.restore()
    assert (
        "checkpoints/.step_1.part" not in names(fresh.disk) and (fresh.disk / "checkpoints/step_1").read_text() == "one"
    )


def test_a_file_pruned_while_we_copy_is_no_error(pair, monkeypatch):
    fill(pair.disk, checkpoints__step_2="two", checkpoints__step_3="three")
    copy = mirror._copy

    def pruned(source, target):
        (pair.disk / "checkpoints/step_3").unlink(missing_ok=True)
        return copy(source, target)

    monkeypatch.setattr(mirror, "_copy", pruned)
    pair.save()
    assert "checkpoints/step_2" in names(pair.volume) and "checkpoints/step_3" not in names(pair.volume)


def test_what_was_restored_is_not_copied_back(pair, monkeypatch):
    fresh = Mirror(pair.disk.parent / "elsewhere", pair.volume)
    fresh.restore()
    assert fresh.digests == pair.digests and names(fresh.disk) == names(pair.volume)
    monkeypatch.setattr(mirror, "_copy", lambda source, target: pytest.fail(f"copied {source}"))
    fresh.save()
    os.utime(fresh.disk / "log", (1, 1))
    with pytest.raises(BaseException, match="copied"):
        fresh.save()
