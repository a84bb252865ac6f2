"""Puzzles as lines of text, for solve_puzzles.py: Sudokus and mazes, read, solved exactly, shown and called names."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from domains import maze, sudoku
from evaluation.puzzle_answers import MAZE, SUDOKU, Answers, Game
from runtime.errors import UsageError

SIDES = {16: 4, 36: 6, 81: 9}  # of Sudokus, by their cells


@dataclass(frozen=True)
class Lines:
    """How puzzles of a kind are written.

    parse(line, its number, side) -> cells (S,); text(cells) -> a line; drawn(cells) -> several. solve(puzzles (N, S))
    -> solutions (N, S) and, for each puzzle, what is wrong with it, "" where it can be solved. unlawful, unfaithful:
    what is said of an answer that isn't.
    """

    game: Game
    parse: Callable[[str, int, int], np.ndarray]
    text: Callable[[np.ndarray], str]
    drawn: Callable[[np.ndarray], str]
    solve: Callable[[np.ndarray], tuple[np.ndarray, list[str]]]
    unlawful: str
    unfaithful: str


def grid_of(cells: np.ndarray) -> str:
    """A Sudoku (S,) as lines of text with its boxes ruled off, . for no digit."""
    side = sudoku.side_of(len(cells))
    height, width = sudoku.box_of(side)
    rule = "+".join(["-" * (2 * width + 1)] * (side // width))[1:-1]
    lines = []
    for row, digits in enumerate(cells.reshape(side, side)):
        if row and row % height == 0:
            lines.append(rule)
        names = [str(digit) if digit else "." for digit in digits]
        lines.append(" | ".join(" ".join(names[at : at + width]) for at in range(0, side, width)))
    return "\n".join(lines)


def rows_of(cells: np.ndarray) -> str:
    """A maze (S,) as its rows."""
    line, side = maze.text(cells), maze.side_of(len(cells))
    return "\n".join(line[at : at + side] for at in range(0, len(line), side))


def solved_sudokus(puzzles: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Solutions by exact search, and what is wrong with puzzles that don't have exactly one."""
    solutions, counts = sudoku.solve(puzzles)
    said = {0: "has no solution", 1: "", 2: "has two solutions or more"}
    return solutions, [said[c] and f"{said[c]}; needed: a puzzle with exactly one" for c in counts]


def solved_mazes(puzzles: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The first shortest paths, and what is wrong with mazes that have none."""
    solutions, moves = maze.solve(puzzles)
    return solutions, ["" if n else "has no way from S to G; needed: a maze with one" for n in moves]


SUDOKUS = Lines(SUDOKU, sudoku.parse, sudoku.text, grid_of, solved_sudokus, "breaks a rule", "changes a clue")
MAZES = Lines(MAZE, maze.parse, maze.text, rows_of, solved_mazes, "is no shortest path", "changes the maze")


def kind_of(model: Any) -> tuple[Lines, int]:
    """What a model was built for and the side of its puzzles; UsageError where they are neither Sudokus nor mazes.

    16 tokens of 6 kinds are a Sudoku of side 4, as in visualizers/puzzles.py.
    """
    length, kinds = getattr(model, "length", 0), getattr(model, "vocabulary", 0)
    if (side := SIDES.get(length, 0)) and kinds == side + 2:
        return SUDOKUS, side
    if kinds == maze.VOCABULARY and round(length**0.5) ** 2 == length:
        return MAZES, maze.side_of(length)
    raise UsageError(f"needed: a model of Sudokus (16, 36 or 81 tokens, side + 2 kinds of them) or of mazes (6 kinds "
                     f"in a square); {type(model).__name__} is for {length or 'other'} tokens.")  # fmt: skip


def read(path: str, lines: Lines, side: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The puzzles (N, S) uint8 of a file, their exact solutions (N, S), and their line numbers.

    Names all bad lines, then raises UsageError.
    """
    grids, numbers, bad = [], [], []
    for number, line in sudoku.numbered_lines(path):
        try:
            grids.append(lines.parse(line, number, side))
            numbers.append(number)
        except UsageError as error:
            bad.append((number, str(error)))
    puzzles = np.stack(grids) if grids else np.zeros((0, side * side), np.uint8)
    solutions, wrong = lines.solve(puzzles)
    bad += [(n, f"line {n} {words}.") for n, words in zip(numbers, wrong, strict=True) if words]
    for _, sentence in sorted(bad):
        print(sentence, file=sys.stderr)
    if bad:
        total = len(grids) + sum(number not in numbers for number, _ in bad)
        raise UsageError(f"{path}: {len(bad)} of {total} lines can't be solved (see above); nothing was done.")
    return puzzles, solutions, numbers


def verdicts(lines: Lines, found: Answers) -> list[str]:
    """What is said of each answer."""
    said = []
    for lawful, faithful in zip(found.lawful, found.faithful, strict=True):
        wrong = [words for fine, words in ((lawful, lines.unlawful), (faithful, lines.unfaithful)) if not fine]
        said.append(f"invalid, {' and '.join(wrong)}" if wrong else "valid")
    return said
