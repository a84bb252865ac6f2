import json

import numpy as np
import pytest

from domains import maze
from scripts import build_mazes


def build(out, *more):
    return build_mazes.main(["side=7", "shortest=9", f"out={out}", "train=40", "test=30", *more])


def arrays(out, split):
    return (np.load(out / split / f"all__{name}.npy") for name in ("inputs", "labels"))


def test_mazes_are_labelled_far_and_disjoint_up_to_symmetry(tmp_path, capsys):
    assert build(tmp_path) == 0
    forms = []
    for split, count in (("train", 40), ("test", 30)):
        x, label = arrays(tmp_path, split)
        answers, moves = maze.solve(x)
        assert x.shape == (count, 49) and (label == answers).all() and moves.min() >= 9
        forms += [maze.canonical(cells) for cells in x]
        meta = json.loads((tmp_path / split / "dataset.json").read_text())
        assert (meta["vocab_size"], meta["seq_len"], meta["num_puzzle_identifiers"]) == (6, 49, 1)
    assert len(set(forms)) == 70
    assert "40 training and 30 test mazes of side 7, 9 to" in capsys.readouterr().out


def test_the_test_mazes_depend_on_the_seed_alone(tmp_path):
    for name, more in (("a", ()), ("b", ("train=5",)), ("c", ("seed=1",))):
        assert build(tmp_path / name, *more) == 0
    (a, _), (b, _), (c, _) = (arrays(tmp_path / name, "test") for name in "abc")
    assert (a == b).all() and (a != c).any()


@pytest.mark.parametrize(
    "more, words",
    [
        (["walls=0.3"], "walls must be two shares such as 0.3,0.5, got '0.3'"),
        (["side=40"], "side from 2 to 32"),
        (["train=0"], "train must be at least 1, got 0"),
        (["side=2", "shortest=2", "walls=0,0"], "only 1 mazes of side 2"),
        (["sid=7"], "nearest: side"),
    ],
)
def test_what_can_not_be_made_ends_in_a_sentence(more, words, tmp_path, capsys):
    assert build(tmp_path, *more) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
