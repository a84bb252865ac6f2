"""Square mazes of random walls, with a shortest path as answer, split into training and test mazes.

usage: python scripts/build_puzzles.py maze [out=data/maze30] [key=value ...]
       python scripts/build_puzzles.py maze side=15 shortest=30 out=data/maze15 [key=value ...]

All mazes differ from each other, and test from training mazes, up to the square's symmetries. The answer is the path
that a breadth-first search from the start finds that looks down, left, right, up (domains/maze.py).

  out=data/maze30   gets train/, test/ and identifiers.json
  side=30           cells a row, at most 32
  shortest=110      moves from start to goal at least
  walls=0.3,0.5     the share of walls of a maze lies between
  train=1000        training mazes
  test=1000         test mazes; the same for any train
  seed=0            of the drawing
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataloaders.puzzle_files import Split, write
from domains import maze
from runtime.errors import UsageError
from scripts.arguments import at_least, command, parse

IN_VAIN = 10_000  # mazes known already, one after another, before the work is given up


@dataclass
class Settings:
    """The keys of the command line."""

    out: str = "data/maze30"
    side: int = 30
    shortest: int = 110
    walls: str = "0.3,0.5"
    train: int = 1000
    test: int = 1000
    seed: int = 0


def work(arguments: list[str]) -> None:
    """Draws the mazes, writes them and says how long their paths are."""
    given, _ = parse(arguments, Settings)
    at_least(1, train=given.train, test=given.test)
    at_least(0, seed=given.seed)
    try:
        low, high = map(float, given.walls.split(","))
    except ValueError as error:
        raise UsageError(f"walls must be two shares such as 0.3,0.5, got {given.walls!r}.") from error
    count, rng, mazes = given.train + given.test, np.random.default_rng(given.seed), []
    with tqdm(total=count, desc="mazes", unit="maze", leave=False, delay=2) as bar:
        for cells in islice(different(given.side, given.shortest, rng, (low, high)), count):
            mazes.append(cells)
            bar.update()
    x = np.stack(mazes)
    labels, moves = maze.solve(x)
    ends = {"test": slice(given.test), "train": slice(given.test, None)}
    write(Path(given.out), {name: Split(x[rows], labels[rows]) for name, rows in ends.items()}, maze.VOCABULARY)
    print(f"{given.out}: {given.train:,} training and {given.test:,} test mazes of side {given.side}, {moves.min()} to "
          f"{moves.max()} moves, {moves.mean():.1f} in the mean, {(x == maze.WALL).mean():.1%} walls")  # fmt: skip


def different(side: int, shortest: int, rng: np.random.Generator, walls: tuple[float, float]) -> Iterator[np.ndarray]:
    """Random mazes (S,) without end, no two of them equal up to symmetry. UsageError where hardly any is new."""
    seen, refused = set(), 0
    for cells in chain.from_iterable(maze.drawn(side, shortest, rng, walls)):
        if (form := maze.canonical(cells)) not in seen:
            seen.add(form)
            refused = 0
            yield cells
        elif (refused := refused + 1) == IN_VAIN:
            raise UsageError(f"only {len(seen)} mazes of side {side} with paths of {shortest} moves were found that "
                             "differ up to symmetry; ask for fewer.")  # fmt: skip


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)
