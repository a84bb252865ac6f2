"""Pictures of Sudokus and of how a model fills them in: clues bold and black, right cells blue, wrong red."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from domains.sudoku_solver import box_of, side_of
from visualizers.canvas import INK, SAMPLES, figure_image, new_figure, save_figure, save_film

WRONG = "#d62728"
INCHES = {4: 1.2, 6: 1.6, 9: 2.2}  # of a grid, by its side


def draw(axis: Any, puzzle: np.ndarray, answer: np.ndarray, solution: np.ndarray, title: str = "") -> None:
    """One puzzle on an axis: its clues, and in the other cells the digits of an answer; all (S,) uint8, 0 for none."""
    side = side_of(len(puzzle))
    height, width = box_of(side)
    axis.clear()
    axis.set(xlim=(-0.04, side + 0.04), ylim=(side + 0.04, -0.04), aspect="equal")
    axis.axis("off")
    for line in range(side + 1):
        axis.plot([0, side], [line, line], color=INK, linewidth=1.2 if line % height == 0 else 0.3)
        axis.plot([line, line], [0, side], color=INK, linewidth=1.2 if line % width == 0 else 0.3)
    for cell, colour in enumerate(colours(puzzle, answer, solution)):
        if digit := puzzle[cell] or answer[cell]:
            place = (cell % side + 0.5, cell // side + 0.54)
            size, weight = 9 if side == 9 else 11, "bold" if puzzle[cell] else "normal"
            axis.text(*place, str(digit), color=colour, ha="center", va="center", fontsize=size, fontweight=weight)
    axis.set_title(title, fontsize=8, color=INK)


def colours(puzzle: np.ndarray, answer: np.ndarray, solution: np.ndarray) -> list[str]:
    """The colour of every cell's digit: of a clue, or of an answer that is right or wrong there; all (S,)."""
    return np.where(puzzle > 0, INK, np.where(answer == solution, SAMPLES, WRONG)).tolist()


def _page(count: int, side: int) -> tuple[Any, list[Any]]:
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    figure, axes = new_figure(INCHES[side] * columns, (INCHES[side] + 0.2) * rows, rows, columns)
    for axis in axes.ravel()[count:]:
        axis.axis("off")
    return figure, list(axes.ravel()[:count])


def save_sudokus(
    puzzles: np.ndarray, answers: np.ndarray, solutions: np.ndarray, path: Path | str, titles: Sequence[str] = ()
) -> Path:
    """Puzzles (N, S) uint8 with their answers as one picture, about square."""
    figure, axes = _page(len(puzzles), side_of(puzzles.shape[1]))
    for index, axis in enumerate(axes):
        draw(axis, puzzles[index], answers[index], solutions[index], titles[index] if titles else "")
    return save_figure(figure, path)


def animate_sudokus(puzzles: np.ndarray, answers: np.ndarray, solutions: np.ndarray, path: Path | str) -> Path:
    """How puzzles (N, S) uint8 are solved, as a film: the clues, then answers (T, N, S) after each supervision step."""
    figure, axes = _page(len(puzzles), side_of(puzzles.shape[1]))
    frames = []
    for step, now in enumerate([np.zeros_like(puzzles), *answers]):
        for index, axis in enumerate(axes):
            right = (now[index] == solutions[index]).all()
            title = "" if step == 0 else f"step {step}{', solved' if right else ''}"
            draw(axis, puzzles[index], now[index], solutions[index], title)
        frames.append(figure_image(figure))
    return save_film(frames, path, milliseconds=500, hold=3_000)
