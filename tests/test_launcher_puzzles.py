"""Options of puzzle models, on tiny data: each composes, builds and takes two steps."""

import json
from pathlib import Path

import numpy as np
import pytest

import launcher
from dataloaders.puzzle_files import Split, write
from domains import maze
from domains.sudoku import tokens
from domains.sudoku_generator import generated
from scripts import build_arc
from scripts.compose import compose, groups, options
from tests.test_launcher import PUZZLES, TINY
from visualizers import render

SMALL = ["loss=act", "loss.steps=2", "model.hidden=16", "model.heads=2", "model.prefix=1", "batch_size=4"]
LONG = ["model.high=1", "model.low=1", "model.layers=1", "batch_size=2"]  # for 900 tokens
FOLDERS = {4: "data/sudoku4", 6: "data/sudoku6", 9: "data/sudoku_hard"}


@pytest.fixture(scope="session")
def sudokus():
    """12 training and 5 test puzzles of each side."""
    made = {side: generated(17, side, np.random.default_rng(side), side * side // 2) for side in FOLDERS}
    return {side: [tokens(part) for part in pair] for side, pair in made.items()}


@pytest.fixture(scope="session")
def mazes():
    """As many mazes of both sides."""
    made = {side: next(maze.drawn(side, 10, np.random.default_rng(side)))[:17] for side in (15, 30)}
    return {f"data/maze{side}": (x, maze.solve(x)[0]) for side, x in made.items()}


@pytest.fixture
def data(sudokus, mazes, tmp_path, monkeypatch):
    """The sets in data/, in the folder the test runs in."""
    monkeypatch.chdir(tmp_path)
    for side, (puzzles, solutions) in sudokus.items():
        test = Split(puzzles[12:], solutions[12:], sets=["easy", "easy", "hard", "hard", "hard"])
        splits = {"train": Split(puzzles[:12], solutions[:12]), "test": test}
        write(Path(FOLDERS[side]), splits, side + 2)
    Path("data/sudoku_full").symlink_to("sudoku_hard")
    for folder, pair in mazes.items():
        parts = {"train": slice(12), "test": slice(12, None)}
        write(Path(folder), {name: Split(*(part[rows] for part in pair)) for name, rows in parts.items()}, 6)
    arc_tasks(Path("data/tasks"))
    assert build_arc.main(["folder=data/tasks", "out=data/arc1", "augmentations=2"]) == 0
    return tmp_path


def arc_tasks(folder):
    """Three tasks to learn and two to judge by, of two demonstrations and one test pair."""
    rng = np.random.default_rng(0)
    for part, count in (("training", 3), ("evaluation", 2)):
        (folder / part).mkdir(parents=True)
        for row in range(count):
            pairs = [{key: rng.integers(0, 4, (2, 3)).tolist() for key in ("input", "output")} for _ in range(3)]
            (folder / part / f"{part}{row}.json").write_text(json.dumps({"train": pairs[:2], "test": pairs[2:]}))


def two_steps(folder, *overrides):
    overrides = [*TINY, *overrides]
    return launcher.train(compose(overrides), folder / "t", overrides)


CASES = [(g, o) for g in groups() for o in options(g) if g not in ("experiment", "debug") and o.startswith(PUZZLES)]


@pytest.mark.parametrize(("group", "option"), CASES, ids=lambda x: x)
def test_every_option_takes_two_steps(group, option, data):
    base = {"dataloaders": "sudoku4", "model": "trm", "loss": "act", "evaluation": "none"} | {group: option}
    if option == "arc":
        base["dataloaders"] = "arc"
    long = LONG if base["dataloaders"] in ("maze", "arc") else []
    summary = two_steps(data, *SMALL, *long, *(f"{key}={value}" for key, value in base.items()))
    assert summary.steps == 2


def test_the_evaluation_tells_the_sets_apart(data):
    summary = two_steps(data, *SMALL, "dataloaders=sudoku", "model=trm_mlp", "evaluation=puzzles", "eval_every=2s")
    names = [name for name in summary.latest if "exact_accuracy" in name]
    assert any("easy" in name for name in names) and any("hard" in name for name in names)


@pytest.mark.parametrize("option", [o for o in options("experiment") if o.startswith(PUZZLES)])
def test_every_experiment_takes_two_steps_and_is_judged(option, data):
    own = {"arc1": [*LONG, "model.ids=16"], "maze15": ["evaluation.count=null"]}.get(option, [])
    changed = ["precision=fp32", "optimizer.schedule.warmup=1", *own]
    summary = two_steps(data, f"experiment={option}", *SMALL[1:], *changed)
    judged = "eval/pass2_2_" if option == "arc1" else "eval/exact_accuracy_5_"
    assert summary.steps == 2 and any(name.startswith(judged) for name in summary.latest)


def test_pictures_are_drawn_with_the_judgement(data):
    overrides = [text for text in TINY if "pictures" not in text]
    overrides += ["experiment=sudoku4", *SMALL[1:], "evaluation.quiet=true"]
    summary = launcher.train(compose(overrides), data / "t", overrides)
    assert {path.suffix for path in (data / "t" / "samples").iterdir()} == {".png", ".gif"}
    assert str(summary.latest["samples/0"]).endswith(".png")
    assert render.main([f"run={data / 't'}", "device=cpu"]) == 0
    assert {path.name for path in (data / "t" / "pictures").iterdir()} >= {"puzzles.png", "puzzles.gif"}
