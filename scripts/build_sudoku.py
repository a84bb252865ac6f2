"""Sudokus with exactly one solution, split into training and test puzzles.

usage: python scripts/build_puzzles.py sudoku FILE [FILE ...] [out=data/sudoku_hard] [key=value ...]
       python scripts/build_puzzles.py sudoku side=4 count=1400 blanks=7,8,9,10 test=400 out=data/sudoku4 [...]

FILEs, plain or .gz, have a puzzle a line, side x side characters, 0 or . for a blank cell. Puzzles without a solution
or with several are left out, each named by its line; a line that is no puzzle ends the work. Test puzzles carry the
name of their file. A training puzzle that equals a test puzzle up to symmetry is dropped.

  out=data/sudoku_hard  gets train/, test/ and identifiers.json
  side=9       4, 6 (boxes of 2 rows x 3 columns) or 9
  test=1000    test puzzles of each file, or for file after file: test=2000,2000,500; the same for any train
  train=null   training puzzles in all, or from file after file: train=500,450,50; null: all that are left
  seed=0       of the choice
  count=null   without files: how many puzzles to make up, all different up to symmetry
  blanks=null  blank cells of those, or several numbers for equal shares; null: as many as leave one solution
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataloaders.puzzle_files import Split, write
from domains.sudoku import invariant, read_numbered, solve, tokens
from domains.sudoku_generator import generated
from domains.sudoku_solver import box_of
from runtime.errors import UsageError
from scripts.arguments import at_least, command, parse

CHUNK = 4096  # puzzles solved between two moves of the progress bar


@dataclass
class Settings:
    """The keys of the command line."""

    out: str = "data/sudoku_hard"
    side: int = 9
    test: str = "1000"
    train: str | None = None
    seed: int = 0
    count: int | None = None
    blanks: str | None = None


@dataclass
class Collection:
    """Puzzles (N, S) of one name with their solutions, 0 blank."""

    name: str
    puzzles: np.ndarray
    solutions: np.ndarray


def work(arguments: list[str]) -> None:
    """Reads or makes up the puzzles, splits them, writes them and says how many there are."""
    files = [Path(text) for text in arguments if "=" not in text or Path(text).exists()]
    given, _ = parse([text for text in arguments if Path(text) not in files], Settings)
    box_of(given.side)
    at_least(0, seed=given.seed)
    at_least(1, count=given.count)
    if bool(files) == (given.count is not None):
        raise UsageError(f"give either files or count=..., got {len(files)} files and count={given.count}.")
    if files and given.blanks is not None:
        raise UsageError("blanks=... is for made-up puzzles; leave it out where files are given.")
    if len({name_of(file) for file in files}) < len(files):
        raise UsageError(f"the files need different names, got {', '.join(map(name_of, files))}.")
    parts = [solved(file, given.side) for file in files] or [made_up(given)]
    tests = numbers("test", given.test, len(parts))
    test, train, dropped = chosen(parts, tests * len(parts) if len(tests) == 1 else tests, given)
    puzzles, solutions = (tokens(np.concatenate([getattr(part, key) for part in parts]))
                          for key in ("puzzles", "solutions"))  # fmt: skip
    names = np.repeat([part.name for part in parts], [len(part.puzzles) for part in parts])
    write(
        Path(given.out),
        {"train": Split(puzzles[train], solutions[train]),
         "test": Split(puzzles[test], solutions[test], sets=names[test])},
        given.side + 2,
    )  # fmt: skip
    for part in parts:
        own = names == part.name
        print(f"{part.name}: {own[train].sum():,} for training, {own[test].sum():,} for the test")
    print(f"{given.out}: {len(train):,} training and {len(test):,} test puzzles of side {given.side}; {dropped:,} left "
          "out of the training because they equal a test puzzle up to symmetry")  # fmt: skip


def name_of(file: Path) -> str:
    """The name of a file's puzzles: without folder, .gz and .txt."""
    return file.name.removesuffix(".gz").removesuffix(".txt")


def numbers(key: str, text: str, most: int) -> list[int]:
    """Whole numbers from 0 on, one or as many as `most`, in "500,450,50"; UsageError otherwise."""
    parts = text.replace("[", "").replace("]", "").split(",")
    found = [int(part) for part in parts if part.strip().isdecimal()]
    if len(found) < len(parts) or len(found) not in (1, most):
        words = "a whole number" + (f" or {most} of them (500,450,...)" if most > 1 else "")
        raise UsageError(f"{key} must be {words}, got {text!r}.")
    return found


def solved(file: Path, side: int) -> Collection:
    """The puzzles of a file that have one solution; names the others."""
    puzzles, lines = read_numbered(file, side)
    began, parts = time.perf_counter(), []
    with tqdm(total=len(puzzles), desc=name_of(file), unit="puzzle", leave=False, delay=2) as bar:
        for start in range(0, len(puzzles), CHUNK):
            parts.append(solve(puzzles[start : start + CHUNK]))
            bar.update(len(parts[-1][1]))
    seconds = time.perf_counter() - began
    solutions, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
    for line, many in zip(lines[counts != 1], counts[counts != 1], strict=True):
        print(f"{file} line {line}: left out, {'no solution' if many == 0 else 'more than one solution'}")
    one = counts == 1
    print(f"{file}: {len(puzzles):,} puzzles, {one.sum():,} with one solution, {len(puzzles) / seconds:,.0f} a second")
    return Collection(name_of(file), puzzles[one], solutions[one])


def made_up(given: Settings) -> Collection:
    """Puzzles by domains/sudoku_generator.py."""
    assert given.count is not None
    blanks: list[int | None] = [None]
    if given.blanks is not None:
        blanks = [*numbers("blanks", given.blanks, given.blanks.count(",") + 1)]
    rng = np.random.default_rng(given.seed)
    ends = np.arange(len(blanks) + 1) * given.count // len(blanks)
    made = [generated(int(many), given.side, rng, own) for many, own in zip(np.diff(ends), blanks, strict=True) if many]
    puzzles, solutions = (np.concatenate(part) for part in zip(*made, strict=True))
    return Collection(f"sudoku{given.side}", puzzles, solutions)


def chosen(parts: list[Collection], tests: list[int], given: Settings) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows of all parts' puzzles, joined: for the test, for training; and how many equal a test puzzle.

    What is for the test depends on the seed and on `test` alone. UsageError where there are too few puzzles.
    """
    sizes = [len(part.puzzles) for part in parts]
    rng, starts = np.random.default_rng(given.seed), np.cumsum([0, *sizes])
    orders = [start + rng.permutation(size) for start, size in zip(starts, sizes, strict=False)]
    for part, many, size in zip(parts, tests, sizes, strict=True):
        if many >= size:
            raise UsageError(f"{part.name} has {size} puzzles; test={many} leaves none to train on.")
    test = np.sort(np.concatenate([order[:many] for order, many in zip(orders, tests, strict=True)]))
    hashes = np.concatenate([invariant(part.puzzles) for part in parts])
    rest = [order[many:] for order, many in zip(orders, tests, strict=True)]
    left = [own[~np.isin(hashes[own], hashes[test])] for own in rest]
    dropped = sum(map(len, rest)) - sum(map(len, left))
    if given.train is None:
        return test, np.sort(np.concatenate(left)), dropped
    wanted = numbers("train", given.train, len(parts))
    pools = left if len(wanted) == len(parts) else [rng.permutation(np.concatenate(left))]
    for many, pool in zip(wanted, pools, strict=True):
        if not 0 < many <= len(pool):
            raise UsageError(f"train={given.train} needs {many} training puzzles where {len(pool)} are left.")
    return test, np.sort(np.concatenate([pool[:many] for many, pool in zip(wanted, pools, strict=True)])), dropped


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)
