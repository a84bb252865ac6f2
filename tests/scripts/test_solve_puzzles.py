"""From lines to answers: what is printed and written, mistakes told by line, and exported models that open again."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from domains import maze, sudoku
from evaluation.puzzle_answers import to_grids
from evaluation.puzzle_solver import PuzzleSolver, Solved
from losses.act import ACT
from models.trm import TRM
from runtime.errors import UsageError
from runtime.op import Objective
from runtime.run import Run
from runtime.trees import flatten
from scripts import puzzle_lines, puzzle_models, solve_puzzles
from training import checkpoint

ROOT = Path(__file__).parents[2]
SIZES = {"vocabulary": 6, "length": 16, "hidden": 16, "heads": 2, "high": 1, "low": 1, "mixer": "mlp", "prefix": 0}
FOUR = ["1000004003000020", "0234301221004300"]  # checked below: one solution each


def run_of(model, objective=None):
    config = OmegaConf.create({"model": {"_target_": "models.trm.TRM", **SIZES}, "plugins": []})
    return Run(config, model, objective or ACT(steps=4), None, step=7)


@pytest.fixture(scope="module")
def small():
    mx.random.seed(1)
    model = TRM(**SIZES)
    mx.eval(model.parameters())
    return model


@pytest.fixture(scope="module")
def file(small, tmp_path_factory):
    """An exported model of random weights: its answers are no solutions."""
    out = tmp_path_factory.mktemp("model") / "small.safetensors"
    puzzle_models.exported.export(run_of(small), out, puzzle_models.KIND, steps=4)
    return out


class Exact:
    """Stands for a perfect model, in the place of PuzzleSolver; its answers take two steps."""

    def __init__(self, model, batch, q_continue):
        self.batch = batch

    def __call__(self, tokens, steps, done, told=int):
        told(len(tokens))
        answers = sudoku.solve(to_grids(tokens))[0].astype(np.int32) + 1
        return Solved(answers, np.ones(len(tokens), np.float32), np.full(len(tokens), 2))


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "puzzles.txt"
    grids = np.stack([sudoku.parse(line, 1, 4) for line in FOUR])
    assert sudoku.solve(grids)[1].tolist() == [1, 1]
    path.write_text(f"{FOUR[0]}\n\n{FOUR[1].replace('0', '.')}\n")
    return path


def test_answers_are_printed_by_line_and_written(file, lines, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(solve_puzzles, "PuzzleSolver", Exact)
    answers = [sudoku.text(grid) for grid in sudoku.solve(sudoku.read(lines, 4))[0]]
    out = tmp_path / "answers.csv"
    assert solve_puzzles.main([f"checkpoint={file}", f"puzzles={lines}", f"out={out}", "device=cpu", "show=true"]) == 0
    printed = capsys.readouterr().out
    assert f"line 1: {answers[0]} valid, 2 steps\n" in printed and f"line 3: {answers[1]} valid, 2 steps\n" in printed
    first = answers[0]
    assert f"{first[0]} {first[1]} | {first[2]} {first[3]}\n" in printed and "----+----" in printed
    assert "2 of 2 valid (100.0%), 2.00 steps a puzzle" in printed and "puzzles/s" in printed
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["line"] for row in rows] == ["1", "3"] and [row["puzzle"] for row in rows] == FOUR
    assert [row["answer"] for row in rows] == answers and {row["valid"] for row in rows} == {"1"}
    text = tmp_path / "answers.txt"
    assert solve_puzzles.main([f"checkpoint={file}", f"puzzles={lines}", f"out={text}", "device=cpu"]) == 0
    assert text.read_text().split() == answers


def test_an_untrained_model_gives_invalid_answers_and_says_why(file, lines, capsys):
    assert solve_puzzles.main([f"checkpoint={file}", f"puzzles={lines}", "steps=3", "vote=2", "device=cpu"]) == 0
    printed = capsys.readouterr().out
    assert "0 of 2 valid (0.0%), 6.00 steps a puzzle" in printed  # two tries of three steps
    assert printed.count("invalid, ") == 2 and "breaks a rule" in printed


def test_pictures_of_answers_and_of_the_way_to_them(file, lines, tmp_path, capsys):
    for name in ("answers.png", "way.gif"):
        arguments = [f"checkpoint={file}", f"puzzles={lines}", f"picture={tmp_path / name}", "steps=3", "device=cpu"]
        assert solve_puzzles.main(arguments) == 0 and name in capsys.readouterr().out
        with Image.open(tmp_path / name) as picture:
            assert getattr(picture, "n_frames", 1) == (4 if name == "way.gif" else 1)


def test_every_bad_line_is_named_and_nothing_is_done(file, tmp_path, capsys):
    path, out = tmp_path / "bad.txt", tmp_path / "out.txt"
    none = "11" + "0" * 14
    path.write_text("\n".join([FOUR[0], FOUR[1][:15], "x" + FOUR[1][1:], none, "0" * 16, "5" + FOUR[1][1:]]) + "\n")
    assert solve_puzzles.main([f"checkpoint={file}", f"puzzles={path}", f"out={out}", "device=cpu"]) == 2
    said = capsys.readouterr()
    wanted = ["line 2 has 15 characters; needed: 16", "line 3 has 'x' at character 1", "line 4 has no solution",
              "line 5 has two solutions or more", "line 6 has '5' at character 1", "error: "]  # fmt: skip
    told = said.err.splitlines()
    assert len(told) == 6 and all(text in line for text, line in zip(wanted, told, strict=True))
    assert "5 of 6 lines can't be solved" in told[-1] and said.out == "" and not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["puzzles=nowhere.txt"], "nowhere.txt"),
        ([], "puzzles is missing"),
        (["puzzles=p", "out=answers.json"], "ends in .txt or .csv"),
        (["puzzles=p", "steps=0"], "steps must be at least 1"),
        (["puzzles=p", "vote=0"], "vote must be at least 1"),
        (["puzzles=p", "picture=p.jpg"], "ends in .png or .gif"),
        (["puzzles=p", "halt=q"], "rules, model, never, got 'q'"),
    ],
    ids=str,
)
def test_mistakes_cost_one_sentence_and_status_2(file, lines, arguments, said, capsys):
    given = [text if text != "puzzles=p" else f"puzzles={lines}" for text in arguments]
    assert solve_puzzles.main([f"checkpoint={file}", "device=cpu", *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error


def test_help_names_every_key(capsys):
    assert solve_puzzles.main(["--help"]) == 0
    keys = [line.split("=")[0].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert set(solve_puzzles.Settings.__dataclass_fields__) <= set(keys)


def test_what_a_model_is_for_is_told_by_its_tokens():
    def kind(kinds, length):
        lines, side = puzzle_lines.kind_of(TRM(kinds, length, hidden=16, heads=2))
        return lines.game.name, side

    assert kind(8, 36) == ("sudoku", 6) and kind(6, 36) == ("maze", 6) and kind(6, 16) == ("sudoku", 4)
    with pytest.raises(UsageError, match="a model of Sudokus .* or of mazes .* TRM is for 900 tokens"):
        kind(12, 900)


def test_mazes_are_solved_written_and_drawn(tmp_path, monkeypatch, capsys):
    class Shortest(Exact):
        """Marks a shortest path in every maze but the last."""

        def __call__(self, tokens, steps, done, told=int):
            answers = maze.solve(tokens.astype(np.uint8))[0].astype(np.int32)
            answers[-1] = tokens[-1]
            return Solved(answers, np.ones(len(tokens), np.float32), np.full(len(tokens), 2))

        def path(self, tokens, steps):
            return np.stack([*[tokens] * (steps - 1), maze.solve(tokens.astype(np.uint8))[0]])

    model = TRM(6, 9, hidden=16, heads=2)
    monkeypatch.setattr(solve_puzzles, "load", lambda *_: (model, {"steps": 4, "q_continue": False}))
    monkeypatch.setattr(solve_puzzles, "PuzzleSolver", Shortest)
    path, out = tmp_path / "mazes.txt", tmp_path / "answers.csv"
    path.write_text("S..##...G\n\n  S## G  \r\n#S#...#G#\n")
    given = [f"puzzles={path}", f"out={out}", "show=true", "vote=8", "halt=never"]
    assert solve_puzzles.main([*given, f"picture={tmp_path}/a.png"]) == 0
    said = capsys.readouterr().out
    assert "line 1: Soo##o..G valid, 2 steps\nSoo\n##o\n..G\n" in said
    assert "line 3: ..S##oGoo valid" in said and "line 4: #S#...#G# invalid, is no shortest path, 16 steps\n" in said
    assert "2 of 3 valid" in said
    with out.open() as stream:
        assert [row["answer"] for row in csv.DictReader(stream)][0] == "Soo##o..G"
    assert solve_puzzles.main([*given, f"picture={tmp_path}/a.gif"]) == 0
    for name, frames in (("a.png", 1), ("a.gif", 2)):
        with Image.open(tmp_path / name) as picture:
            assert getattr(picture, "n_frames", 1) == frames
            if name == "a.png":  # the path that the last answer lacks is drawn in red
                assert (np.array(picture.convert("RGB")) == [255, 0, 0]).all(axis=-1).any()
    assert solve_puzzles.main([f"puzzles={path}", "vote=9"]) == 2 and "8 symmetries" in capsys.readouterr().err
    path.write_text("S..##...G\nS..##..G\nS..##.x.G\nS.G##...G\nS#.##...G\n")
    assert solve_puzzles.main([f"puzzles={path}"]) == 2
    said = capsys.readouterr().err
    for sentence in ("line 2 has 8 characters; needed: 9", "line 3 has 'x' at character 7", "line 4 has 1 S and 2 G",
                     "line 5 has no way from S to G", "4 of 5 lines can't be solved"):  # fmt: skip
        assert sentence in said


def test_an_exported_file_holds_the_weights_in_16_bits_and_the_steps(small, file):
    model, trained = puzzle_models.load(file, "cpu")
    assert trained == {"steps": 4, "q_continue": False} and isinstance(model, TRM) and not model.training
    own = flatten(small.parameters())
    assert flatten(model.parameters()).keys() == own.keys()
    for name, array in flatten(model.parameters()).items():
        assert array.dtype == mx.float32
        np.testing.assert_array_equal(np.array(array), np.array(own[name]).astype(np.float16), name)
    assert file.stat().st_size < 2 * sum(array.size for array in own.values()) + 4096
    assert checkpoint.load(file)[1]["step"] == 7


def test_when_the_model_stops_is_as_it_was_trained(small, lines, tmp_path, monkeypatch, capsys):
    """Its halting logits are .5 and 1: TRM stops at once, HRM never before the last step."""
    model = TRM(**SIZES)
    model.q_weight, model.q_bias = mx.zeros((2, 16)), mx.array([0.5, 1.0])
    for q_continue, taken in ((False, 1), (True, 4)):
        run = run_of(model, ACT(steps=4, q_continue=q_continue))
        monkeypatch.setattr(puzzle_models, "load_run", lambda *_, run=run, **__: run)
        out = tmp_path / f"{taken}.safetensors"
        puzzle_models.export("outputs/r", out)
        assert solve_puzzles.main([f"checkpoint={out}", f"puzzles={lines}", "halt=model", "device=cpu"]) == 0
        assert f"{taken:.2f} steps a puzzle" in capsys.readouterr().out


def test_an_embedding_of_the_puzzles_goes_along(tmp_path):
    sizes = {**SIZES, "prefix": 1, "ids": 2}
    model: Any = TRM(**sizes)
    model.table.state["rows"] = mx.arange(32).reshape(2, 16).astype(mx.float32)
    model.q_weight = mx.ones((2, 16)) * mx.arange(16)
    run = run_of(model)
    run.config.model = {"_target_": "models.trm.TRM", **sizes}
    out = tmp_path / "table.safetensors"
    puzzle_models.exported.export(run, out, puzzle_models.KIND, steps=4)
    found: Any = puzzle_models.load(out, "cpu")[0]
    assert mx.array_equal(found.table[mx.array([0, 1])], model.table[mx.array([0, 1])]).item()
    puzzles = np.array([sudoku.parse(line, 1, 4) for line in FOUR], np.int32) + 1
    batch = {"x": mx.array(puzzles), "puzzle": mx.zeros(2, mx.int32)}
    *_, (tokens, q, _) = ACT().rollout(found, batch, 3)
    solved = PuzzleSolver(found, 2)(puzzles, 3)
    np.testing.assert_array_equal(solved.tokens, np.array(tokens))
    np.testing.assert_allclose(solved.q, np.array(q), atol=1e-4)
    found.table.state["rows"] = mx.zeros((2, 16))
    assert np.abs(PuzzleSolver(found, 2)(puzzles, 3).q - solved.q).max() > 1e-3


def test_what_is_no_puzzle_model_is_told(small, file, tmp_path, monkeypatch):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(file.read_bytes()[:-4] + b"0123")
    with pytest.raises(UsageError, match="damaged"):
        puzzle_models.load(damaged, "cpu")
    other = tmp_path / "other.safetensors"
    checkpoint.save(other, {"a": mx.zeros(2)}, {"kind": "eis_predictor"})
    with pytest.raises(UsageError, match="no exported model of kind puzzle_model"):
        puzzle_models.load(other, "cpu")
    monkeypatch.setitem(puzzle_models.SHIPPED, "sudoku", tmp_path / "gone.safetensors")
    with pytest.raises(UsageError, match="no weights are shipped for sudoku"):
        puzzle_models.load("sudoku", "cpu")
    with pytest.raises(UsageError, match="a run of loss=act, a model of puzzles; this one's is Objective"):
        puzzle_models.trained(run_of(small, Objective()))
    large = TRM(**SIZES)
    large.head = large.head + 1e5
    with pytest.raises(UsageError, match="head are not finite in 16 bits"):
        puzzle_models.exported.export(run_of(large), other, puzzle_models.KIND)


def test_it_runs_as_a_file_from_any_folder(file, lines, tmp_path):
    command = [sys.executable, ROOT / "scripts" / "solve_puzzles.py", f"checkpoint={file}", f"puzzles={lines}"]
    done = subprocess.run([*command, "device=cpu"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "0 of 2 valid" in done.stdout, done.stderr
