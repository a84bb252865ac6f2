"""Solves Sudokus or mazes with a trained recursive model.

usage: python scripts/solve_puzzles.py puzzles=FILE [key=value ...]

  puzzles=FILE       a grid a line, row by row. Sudokus: 0 or . for a blank, 81 characters, 16 or 36 for models of 4x4
                     or 6x6. Mazes: # for a wall, . or a space for an open cell, S, G; in answers o marks the path
  checkpoint=sudoku  a checkpoint, a run's folder, a file of scripts/puzzle_models.py; sudoku: the model that is shipped
  out=FILE           answers: .txt, a line each in the order of the puzzles, or .csv with validity, steps and tries
  show=false         true: print every answer as a grid too
  picture=FILE       .png: the first 16 answers, what is wrong in red; .gif: the first 4 puzzles step by step
  steps=STEPS        supervision steps a try; left out: as many as in training
  vote=1             tries at most: what has no valid answer is tried again under another symmetry of the rules, random
                     for Sudokus; mazes have eight
  halt=rules         a try ends once its answer is valid; model: once the model halts; never: after `steps`
  batch=SIZE         puzzles at once; left out: 8 on a CPU, 512 on a GPU
  ema=true           of a run; true: the first average kept; false: the plain weights; 0.999: the average of that decay
  seed=0             of the symmetries
  device=auto        auto, gpu or cpu

Every answer is checked by the rules and by the clues: valid means that it is the solution, or one of a maze's shortest
paths. An exact solver looks at the puzzles first. Lines that are no grid, puzzles without a solution and Sudokus with
several are all named by line; then nothing is solved or written, and the exit status is 2.
"""

import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import mlx.core as mx
import numpy as np
from tqdm import tqdm

from evaluation.puzzle_answers import Answers, solve
from evaluation.puzzle_solver import PuzzleSolver
from scripts.arguments import at_least, command, ends_in, parse, weights
from scripts.puzzle_lines import Lines, kind_of, read, verdicts
from scripts.puzzle_models import load
from visualizers.canvas import write

PICTURED, MOVING = 16, 4  # puzzles in a picture, at rest and step by step


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


def save(path: str, lines: Lines, puzzles: np.ndarray, numbers: list[int], found: Answers) -> Path:
    """Writes the answers as lines (.txt) or as a table (.csv)."""
    answers = list(map(lines.text, found.grids))
    if path.endswith(".txt"):
        return write(path, lambda file: file.write_text("\n".join(answers) + "\n"))
    columns = zip(numbers, map(lines.text, puzzles), answers, found.valid, found.steps, found.tries, strict=True)

    def table(file: Path) -> None:
        with file.open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["line", "puzzle", "answer", "valid", "steps", "tries"])
            rows.writerows([line, puzzle, answer, int(valid), *rest] for line, puzzle, answer, valid, *rest in columns)

    return write(path, table)


def draw(
    path: str, lines: Lines, puzzles: np.ndarray, right: np.ndarray, found: Answers, solver: PuzzleSolver, steps: int
) -> Path:
    """The picture or the animation of the first puzzles, by the path's suffix; a valid answer is drawn as right."""
    from visualizers.puzzles import animate, draw_answers

    name, count = lines.game.name, PICTURED if path.endswith(".png") else MOVING
    label = np.where(found.valid[:, None], found.grids, right)
    x, answers, label = (lines.game.tokens(part[:count]) for part in (puzzles, found.grids, label))
    if path.endswith(".png"):
        return draw_answers(name, x, answers[None], label, Path(path))
    way = solver.path(x, int(min(steps, found.steps[:MOVING].max())))
    return animate(name, x, way, label, Path(path), MOVING)


def work(arguments: list[str]) -> None:
    """Reads, solves, prints and writes."""
    given, _ = parse(arguments, Settings)
    at_least(1, steps=given.steps, vote=given.vote, batch=given.batch)
    at_least(0, seed=given.seed)
    ends_in((".txt", ".csv"), out=given.out)
    ends_in((".png", ".gif"), picture=given.picture)
    model, trained = load(given.checkpoint, given.device, weights(given.ema))
    steps = given.steps or trained["steps"]
    lines, side = kind_of(model)
    puzzles, solutions, numbers = read(given.puzzles, lines, side)
    size = given.batch or (8 if mx.default_device() == mx.Device(mx.cpu) else 512)
    solver = PuzzleSolver(model, size, trained["q_continue"])
    began = time.perf_counter()
    total, unit = (len(puzzles), "puzzle") if given.vote == 1 else (None, "try")
    with tqdm(total=total, unit=unit, file=sys.stderr, dynamic_ncols=True, leave=False,
              disable=not sys.stderr.isatty()) as bar:  # fmt: skip
        found = solve(solver, lines.game, puzzles, steps, given.vote, given.halt, given.seed, bar.update)  # type: ignore[arg-type]
    seconds = time.perf_counter() - began
    for number, cells, word, taken in zip(numbers, found.grids, verdicts(lines, found), found.steps, strict=True):
        print(f"line {number}: {lines.text(cells)} {word}, {taken} step{'' if taken == 1 else 's'}")
        if given.show:
            print(f"{lines.drawn(cells)}\n")
    count, right = len(puzzles), int(found.valid.sum())
    print(f"{right} of {count} valid ({right / count:.1%}), {found.steps.mean():.2f} steps a puzzle, "
          f"{seconds:.1f} s, {count / seconds:.2f} puzzles/s")  # fmt: skip
    if given.out is not None:
        print(f"answers: {save(given.out, lines, puzzles, numbers, found)}")
    if given.picture is not None:
        print(f"picture: {draw(given.picture, lines, puzzles, solutions, found, solver, steps)}")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
