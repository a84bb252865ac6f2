"""Solves Sudokus with a trained recursive model.

usage: python scripts/solve_puzzles.py puzzles=FILE [key=value ...]

  puzzles=FILE       a grid a line, row by row, 0 or . for a blank: 81 characters, 16 or 36 for models of 4x4 or 6x6
  checkpoint=sudoku  a checkpoint, a run's folder, a file of scripts/puzzle_models.py; sudoku: the model that is shipped
  out=FILE           answers: .txt, a line each in the order of the puzzles, or .csv with validity, steps and tries
  show=false         true: print every answer as a grid too
  picture=FILE       .png: the first 16 answers, what is wrong in red; .gif: the first 4 puzzles step by step
  steps=STEPS        supervision steps a try; left out: as many as in training
  vote=1             tries at most: what has no valid answer is tried again under a random symmetry of the rules
  halt=rules         a try ends once its answer keeps rules and clues; model: once the model halts; never: after `steps`
  batch=SIZE         puzzles at once; left out: 8 on a CPU, 512 on a GPU
  ema=true           of a run; true: the first average kept; false: the plain weights; 0.999: the average of that decay
  seed=0             of the symmetries
  device=auto        auto, gpu or cpu

Every answer is checked by the rules and by the clues: valid means that it is the solution. An exact solver looks at the
puzzles first. Lines that are no grid, and puzzles without a solution or with several, are all named by line; then
nothing is solved or written, and the exit status is 2.
"""

import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import mlx.core as mx
import numpy as np
from tqdm import tqdm

from domains import sudoku
from evaluation.puzzle_solver import PuzzleSolver
from evaluation.sudoku_answers import SudokuAnswers, solve_sudokus, to_grids
from runtime.errors import UsageError
from scripts.arguments import at_least, command, ends_in, parse, weights
from scripts.puzzle_models import load
from visualizers.canvas import write

PICTURED, MOVING = 16, 4  # puzzles in a picture, at rest and step by step
SIDES = {16: 4, 36: 6, 81: 9}


@dataclass
class Settings:
    """The keys of the command line."""

    puzzles: str = "???"
    checkpoint: str = "sudoku"
    out: str | None = None
    show: bool = False
    picture: str | None = None
    steps: int | None = None
    vote: int = 1
    halt: str = "rules"
    batch: int | None = None
    ema: str = "true"
    seed: int = 0
    device: str = "auto"


def read(path: str, side: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The puzzles (N, S) uint8 of a file, their solutions (N, S) by exact search, and their line numbers.

    Names all bad lines, then raises UsageError.
    """
    grids, numbers, bad = [], [], []
    for number, line in sudoku.numbered_lines(path):
        try:
            grids.append(sudoku.parse(line, number, side))
            numbers.append(number)
        except UsageError as error:
            bad.append((number, str(error)))
    puzzles = np.stack(grids) if grids else np.zeros((0, side * side), np.uint8)
    solutions, counts = sudoku.solve(puzzles)
    said = {0: "has no solution", 2: "has two solutions or more"}
    bad += [(n, f"line {n} {said[c]}; needed: a puzzle with exactly one.")
            for n, c in zip(numbers, counts, strict=True) if c != 1]  # fmt: skip
    for _, sentence in sorted(bad):
        print(sentence, file=sys.stderr)
    if bad:
        total = len(grids) + sum(number not in numbers for number, _ in bad)
        raise UsageError(f"{path}: {len(bad)} of {total} lines can't be solved (see above); nothing was done.")
    return puzzles, solutions, numbers


def side_of(model: Any) -> int:
    """The side of the Sudokus that a model was built for; UsageError where it is for other puzzles."""
    side = SIDES.get(getattr(model, "length", 0), 0)
    if not side or model.vocabulary != side + 2:
        raise UsageError(f"needed: a model of Sudokus (16, 36 or 81 tokens, side + 2 kinds of them); "
                         f"{type(model).__name__} is for {getattr(model, 'length', 'other')} tokens.")  # fmt: skip
    return side


def grid_of(cells: np.ndarray) -> str:
    """A grid (S,) as lines of text with its boxes ruled off, . for no digit."""
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


def verdicts(found: SudokuAnswers) -> list[str]:
    """What is said of each answer."""
    words = {(True, True): "valid", (True, False): "invalid, changes a clue", (False, True): "invalid, breaks a rule",
             (False, False): "invalid, breaks a rule and changes a clue"}  # fmt: skip
    return [words[bool(a), bool(b)] for a, b in zip(found.lawful, found.faithful, strict=True)]


def save(path: str, puzzles: np.ndarray, numbers: list[int], found: SudokuAnswers) -> Path:
    """Writes the answers as lines (.txt) or as a table (.csv)."""
    answers = list(map(sudoku.text, found.grids))
    if path.endswith(".txt"):
        return write(path, lambda file: file.write_text("\n".join(answers) + "\n"))
    columns = zip(numbers, map(sudoku.text, puzzles), answers, found.valid, found.steps, found.tries, strict=True)

    def table(file: Path) -> None:
        with file.open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["line", "puzzle", "answer", "valid", "steps", "tries"])
            rows.writerows([line, puzzle, answer, int(valid), *rest] for line, puzzle, answer, valid, *rest in columns)

    return write(path, table)


def draw(
    path: str, puzzles: np.ndarray, solutions: np.ndarray, found: SudokuAnswers, solver: PuzzleSolver, steps: int
) -> Path:
    """The picture or the animation of the first puzzles, by the path's suffix."""
    from visualizers.sudoku import animate_sudokus, save_sudokus

    if path.endswith(".png"):
        return save_sudokus(puzzles[:PICTURED], found.grids[:PICTURED], solutions[:PICTURED], path)
    moving = puzzles[:MOVING]
    answers = to_grids(solver.path(moving.astype(np.int32) + 1, int(min(steps, found.steps[:MOVING].max()))))
    return animate_sudokus(moving, answers, solutions[:MOVING], path)


def work(arguments: list[str]) -> None:
    """Reads, solves, prints and writes."""
    given, _ = parse(arguments, Settings)
    at_least(1, steps=given.steps, vote=given.vote, batch=given.batch)
    at_least(0, seed=given.seed)
    ends_in((".txt", ".csv"), out=given.out)
    ends_in((".png", ".gif"), picture=given.picture)
    model, trained = load(given.checkpoint, given.device, weights(given.ema))
    steps = given.steps or trained["steps"]
    puzzles, solutions, numbers = read(given.puzzles, side_of(model))
    size = given.batch or (8 if mx.default_device() == mx.Device(mx.cpu) else 512)
    solver = PuzzleSolver(model, size, trained["q_continue"])
    began = time.perf_counter()
    total, unit = (len(puzzles), "puzzle") if given.vote == 1 else (None, "try")
    with tqdm(total=total, unit=unit, file=sys.stderr, dynamic_ncols=True, leave=False,
              disable=not sys.stderr.isatty()) as bar:  # fmt: skip
        found = solve_sudokus(solver, puzzles, steps, given.vote, given.halt, given.seed, bar.update)  # type: ignore[arg-type]
    seconds = time.perf_counter() - began
    for number, cells, word, taken in zip(numbers, found.grids, verdicts(found), found.steps, strict=True):
        print(f"line {number}: {sudoku.text(cells)} {word}, {taken} step{'' if taken == 1 else 's'}")
        if given.show:
            print(f"{grid_of(cells)}\n")
    count, right = len(puzzles), int(found.valid.sum())
    print(f"{right} of {count} valid ({right / count:.1%}), {found.steps.mean():.2f} steps a puzzle, "
          f"{seconds:.1f} s, {count / seconds:.2f} puzzles/s")  # fmt: skip
    if given.out is not None:
        print(f"answers: {save(given.out, puzzles, numbers, found)}")
    if given.picture is not None:
        print(f"picture: {draw(given.picture, puzzles, solutions, found, solver, steps)}")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
