"""Colours of cells, and files of the right size with as many frames as there are steps."""

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from runtime.errors import UsageError
from runtime.op import Objective
from runtime.run import Run
from visualizers.canvas import INK, SAMPLES
from visualizers.puzzles import PuzzlePicture, drawn, kind_of
from visualizers.sudoku import WRONG, colours, save_sudokus
from visualizers.token_grids import ARC, MAZE, images, rgb

SOLUTION = np.array([1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1], np.uint8)


def test_clues_right_and_wrong_cells_have_their_colours():
    puzzle, answer = np.zeros(16, np.uint8), SOLUTION.copy()
    puzzle[0], answer[0], answer[5] = 1, 4, 1  # a clue stays a clue, whatever the answer says
    found = colours(puzzle, answer, SOLUTION)
    assert found[0] == INK and found[5] == WRONG and set(found[1:5] + found[6:]) == {SAMPLES}


def share(path, colour):
    """The share of a picture's pixels that are nearly of a colour."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    return (np.abs(pixels - [int(colour[at : at + 2], 16) for at in (1, 3, 5)]).sum(axis=-1) < 30).mean()


def test_wrong_cells_are_seen_in_the_picture(tmp_path):
    puzzle = np.where(np.arange(16) % 2, SOLUTION, 0)[None].astype(np.uint8)
    right = save_sudokus(puzzle, SOLUTION[None], SOLUTION[None], tmp_path / "right.png")
    wrong = save_sudokus(puzzle, (SOLUTION % 4 + 1)[None], SOLUTION[None], tmp_path / "wrong.png", ["one"])
    assert share(right, WRONG) == 0 and share(right, SAMPLES) > 0
    assert share(wrong, WRONG) > 0 and share(wrong, SAMPLES) == 0


def test_tokens_become_pixels_of_their_colours():
    maze = np.array([[1, 2, 3, 4, 5, 2, 2, 1, 0]])
    found = images(maze, "maze", wrong=np.arange(9)[None] == 7)
    assert found.shape == (1, 3, 3, 3)
    np.testing.assert_allclose(found[0, 0, 2], rgb(MAZE[3]), atol=1e-6)
    np.testing.assert_allclose(found[0, 2, 1], rgb("#ff0000"), atol=1e-6)
    arc = images(np.array([[-100, 2, 11, 1]]), "arc")
    np.testing.assert_allclose(arc[0].reshape(4, 3), [rgb(ARC[token]) for token in (0, 2, 11, 1)], atol=1e-6)
    assert rgb("#ff8000") == pytest.approx([1, 0.0039, -1], abs=1e-3)
    with pytest.raises(UsageError, match="square grids of kind maze or arc, got 'maze' of 10 tokens"):
        images(np.zeros((1, 10), int), "maze")


@pytest.mark.parametrize(("length", "vocabulary", "kind"), [
    (16, 6, "sudoku"), (36, 8, "sudoku"), (81, 11, "sudoku"), (225, 6, "maze"), (900, 6, "maze"), (900, 12, "arc"),
])  # fmt: skip
def test_the_kind_is_told_from_the_tokens(length, vocabulary, kind):
    assert kind_of(length, vocabulary) == kind


def test_other_tokens_are_refused():
    with pytest.raises(UsageError, match="got 81 tokens of 9 kinds"):
        kind_of(81, 9)
    with pytest.raises(UsageError, match="sudoku, maze, arc or null, got 'chess'"):
        PuzzlePicture(kind="chess")


def frames(path):
    with Image.open(path) as film:
        return film.n_frames  # type: ignore[attr-defined]


class Steps(Objective):
    """Answers that get better: after step t the first t quarters of the labels are right, in the others stands 2."""

    def rollout(self, model, batch, steps=None):
        for step in range(1, 5):
            known = mx.arange(batch["label"].shape[1]) < step * batch["label"].shape[1] // 4
            yield mx.where(known, batch["label"], 2), mx.zeros(len(batch["x"]))


def run_of(count, length, vocabulary):
    rng = np.random.default_rng(0)
    label = np.tile(SOLUTION.astype(np.int32) + 1, (count, 1)) if length == 16 else rng.integers(1, 6, (count, length))
    data = {"x": np.where(np.arange(length) % 2, label, 1).astype(np.int32), "label": label.astype(np.int32)}
    source = SimpleNamespace(take=lambda rows, rng: {name: value[rows] for name, value in data.items()})
    held_out = type("Rows", (), {"__len__": lambda self: count, "take": staticmethod(source.take)})()
    pipeline = SimpleNamespace(sources={"eval": held_out}, shape=(length,), classes=vocabulary)
    return Run({}, None, Steps(), pipeline)  # type: ignore[arg-type]


@pytest.mark.parametrize(("length", "vocabulary", "more"), [(16, 6, 1), (25, 6, 0), (36, 12, 0)])
def test_a_run_gives_a_picture_and_an_animation_of_every_step(length, vocabulary, more, tmp_path):
    files = PuzzlePicture(puzzles=3, moving=2)(run_of(5, length, vocabulary), tmp_path, "step_1")
    assert [file.name for file in files] == ["step_1.png", "step_1.gif"] and frames(files[1]) == 4 + more
    assert [file.name for file in PuzzlePicture(moving=0)(run_of(5, length, vocabulary), tmp_path)] == ["puzzles.png"]
    empty = run_of(5, length, vocabulary)
    empty.pipeline.sources = {}
    assert PuzzlePicture()(empty, tmp_path) == []


def test_arc_shows_question_answer_and_truth_and_ignores_what_is_not_judged(tmp_path):
    x, label = np.full((1, 4), 2), np.array([[3, 4, 5, -100]])
    answers = np.array([[[3, 4, 6, 9]]])
    (file,) = drawn("arc", x, answers, label, tmp_path / "arc", moving=0)
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    zoom = 32
    centres = [2 + zoom // 2, 2 + zoom // 2 + zoom]
    cells = [
        [pixels[row, column + panel * (2 * zoom + 2)] for row in centres for column in centres] for panel in range(3)
    ]
    tokens = [[2, 2, 2, 2], [3, 4, 6, 0], [3, 4, 5, 0]]
    want = [[[int(ARC[token][at : at + 2], 16) for at in (1, 3, 5)] for token in panel] for panel in tokens]
    np.testing.assert_allclose(np.array(cells).astype(int), want, atol=1)
