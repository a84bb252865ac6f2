import gzip

import numpy as np
import pytest

from dataloaders.puzzles import Puzzles
from domains.sudoku import apply as moved
from domains.sudoku import invariant, solve, symmetries, text
from domains.sudoku_generator import generated
from runtime.errors import UsageError
from scripts import build_puzzles
from scripts.build_sudoku import numbers


@pytest.fixture(scope="module")
def made():
    return generated(60, 4, np.random.default_rng(0), 8)[0]


def file_of(path, puzzles, *more):
    path.write_text("".join(f"{text(puzzle)}\n" for puzzle in puzzles) + "".join(f"{line}\n" for line in more))
    return str(path)


def plain(data: Puzzles) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(data.inputs) - np.uint8(1), np.asarray(data.labels) - np.uint8(1)


def test_files_are_solved_split_and_named(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    one = file_of(tmp_path / "one.txt", made[:30])
    (tmp_path / "two.txt.gz").write_bytes(gzip.compress("".join(text(p) + "\n" for p in made[30:]).encode()))
    assert build_puzzles.main(["sudoku", one, "two.txt.gz", "side=4", "test=4,7", "out=made"]) == 0
    train, test = Puzzles("made"), Puzzles("made", "test")
    assert (len(train), len(test), train.classes, train.shape) == (49, 11, 6, (16,))
    assert test.sets is not None and test.sets.tolist() == ["one"] * 4 + ["two"] * 7 and train.sets is None
    for data in (train, test):
        puzzles, solutions = plain(data)
        found, counts = solve(puzzles)
        assert (counts == 1).all() and (found == solutions).all()
    rows = {text(puzzle) for data in (train, test) for puzzle in plain(data)[0]}
    assert rows == {text(puzzle) for puzzle in made}
    assert {text(puzzle) for puzzle in plain(test)[0][:4]} <= {text(puzzle) for puzzle in made[:30]}
    assert "one: 26 for training, 4 for the test" in capsys.readouterr().out


def test_training_puzzles_equal_to_a_test_puzzle_are_dropped(made, tmp_path, capsys):
    turned = moved(made, *symmetries(len(made), 4, np.random.default_rng(1)))
    first, second = file_of(tmp_path / "a.txt", made), file_of(tmp_path / "b.txt", turned)
    assert build_puzzles.main(["sudoku", first, second, "side=4", "test=10,0", f"out={tmp_path}/made"]) == 0
    train, test = Puzzles(f"{tmp_path}/made"), Puzzles(f"{tmp_path}/made", "test")
    assert (len(train), len(test)) == (100, 10)  # 50 left of a, as many of b
    assert not np.isin(invariant(plain(train)[0]), invariant(plain(test)[0])).any()
    assert "10 left out of the training because they equal a test puzzle" in capsys.readouterr().out


def test_the_test_puzzles_do_not_depend_on_the_training(made, tmp_path):
    files = [file_of(tmp_path / "a.txt", made[:40]), file_of(tmp_path / "b.txt", made[40:])]
    for out, train in (("all", []), ("few", ["train=12"]), ("each", ["train=10,5"]), ("other", ["seed=1"])):
        told = ["sudoku", *files, "side=4", "test=5", f"out={tmp_path}/{out}", *train]
        assert build_puzzles.main(told) == 0
    tests = {out: plain(Puzzles(f"{tmp_path}/{out}", "test"))[0] for out in ("all", "few", "each", "other")}
    assert (tests["all"] == tests["few"]).all() and (tests["all"] == tests["each"]).all()
    assert (tests["all"] != tests["other"]).any()
    assert len(Puzzles(f"{tmp_path}/few")) == 12
    found = {text(puzzle) for puzzle in plain(Puzzles(f"{tmp_path}/each"))[0]}
    assert len(found & {text(puzzle) for puzzle in made[:40]}) == 10 and len(found) == 15


def test_puzzles_without_exactly_one_solution_are_named_by_line_and_left_out(made, tmp_path, capsys):
    path = file_of(tmp_path / "a.txt", made[:9], "", "0" * 16, "11" + "0" * 14, text(made[9]))
    assert build_puzzles.main(["sudoku", path, "side=4", "test=2", f"out={tmp_path}/made"]) == 0
    out = capsys.readouterr().out
    assert f"{path} line 11: left out, more than one solution" in out
    assert f"{path} line 12: left out, no solution" in out and "12 puzzles, 10 with one" in out
    assert len(Puzzles(f"{tmp_path}/made")) == 8


def test_made_up_puzzles(tmp_path):
    told = ["sudoku", "side=4", "count=31", "blanks=7,9,8", "test=6"]
    for out in ("a", "b"):
        assert build_puzzles.main([*told, f"out={tmp_path}/{out}"]) == 0
    train, test = Puzzles(f"{tmp_path}/a"), Puzzles(f"{tmp_path}/a", "test")
    puzzles = np.concatenate([plain(train)[0], plain(test)[0]])
    assert np.bincount((puzzles == 0).sum(axis=1)).tolist() == [0] * 7 + [10, 11, 10]
    assert len(np.unique(invariant(puzzles))) == 31
    assert test.sets is not None and set(test.sets.tolist()) == {"sudoku4"}
    assert (plain(train)[0] == plain(Puzzles(f"{tmp_path}/b"))[0]).all()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (["side=4"], "give either files or count=..., got 0 files and count=None"),
        (["FILE", "count=3"], "give either files or count=..., got 1 files"),
        (["FILE", "blanks=3"], "blanks=... is for made-up puzzles"),
        (["FILE", "FILE"], "the files need different names, got a, a"),
        (["FILE", "side=5"], "side 4, 6 or 9, got 5"),
        (["FILE"], "line 1 has 16 characters; needed: 81"),
        (["FILE", "side=4", "test=60"], "a has 60 puzzles; test=60 leaves none to train on"),
        (["FILE", "side=4", "test=5", "train=56"], "train=56 needs 56 training puzzles where 55 are left"),
        (["FILE", "side=4", "test=5,5"], "test must be a whole number, got '5,5'"),
        (["FILE", "side=4", "test=5", "seed=-1"], "seed must be at least 0, got -1"),
        (["missing.txt"], "missing.txt"),
        (["side=4", "count=9", "blanks=2.5", "test=1"], "blanks must be a whole number, got '2.5'"),
    ],
)
def test_mistakes_end_with_a_sentence_and_status_2(told, message, made, tmp_path, capsys):
    path = file_of(tmp_path / "a.txt", made)
    told = [path if text == "FILE" else text for text in told]
    assert build_puzzles.main(["sudoku", *told, f"out={tmp_path}/made"]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "made").exists()


def test_numbers():
    assert numbers("test", "[3, 4]", 2) == [3, 4] and numbers("test", "5", 2) == [5]
    with pytest.raises(UsageError, match=r"test must be a whole number or 2 of them .*got '1,2,3'"):
        numbers("test", "1,2,3", 2)


def test_unknown_kinds_and_help(capsys):
    assert build_puzzles.main(["sudko"]) == 2 and "nearest: sudoku" in capsys.readouterr().err
    assert build_puzzles.main(["--help"]) == 0 and "sudoku" in capsys.readouterr().out
    assert build_puzzles.main(["sudoku", "--help"]) == 0 and "blanks=" in capsys.readouterr().out
