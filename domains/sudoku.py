"""Sudokus of side 4, 6 (boxes of 2 rows x 3 columns) and 9: reading, checking, and the symmetries that keep the rules.

Grids are (N, S) uint8 with S = side x side, row by row, 0 blank. The symmetries: digits in another order; bands (rows
of boxes) and rows within a band in another order; the same for stacks and columns; and, where boxes are square, the
transpose. Boxes of 6x6 are not square: its transpose has boxes of 3 x 2 and is another game.
"""

import gzip
from pathlib import Path

import numpy as np

from domains.sudoku_solver import box_of, side_of
from domains.sudoku_solver import solve as solve
from runtime.errors import UsageError

ROUNDS = 5  # of refinement in `invariant`
CHUNK = 2048  # grids whose cells are coloured together


def parse(line: str, number: int, side: int = 9) -> np.ndarray:
    """The grid (S,) uint8 in a line of S characters, 0 or . for a blank cell; UsageError that names the line."""
    text = line.strip()
    if len(text) != side * side:
        raise UsageError(f"line {number} has {len(text)} characters; needed: {side * side}, one a cell.")
    grid = np.frombuffer(text.encode("latin-1", "replace").replace(b".", b"0"), np.uint8) - np.uint8(ord("0"))
    if grid.max() > side:  # characters before "0" have wrapped around
        place = int((grid > side).argmax())
        raise UsageError(
            f"line {number} has {text[place]!r} at character {place + 1}; needed: digits 1 to {side}, 0 or . for blank."
        )
    return grid


def numbered_lines(path: str | Path) -> list[tuple[int, str]]:
    """The lines of a text file, plain or .gz, with their numbers from 1; empty ones are skipped.

    UsageError for a file that can't be read or has none.
    """
    file = Path(path)
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError) as error:
        raise UsageError(f"{file}: {error}") from error
    lines = [(number, line) for number, line in enumerate(raw.decode("latin-1").split("\n"), 1) if line.strip()]
    if not lines:
        raise UsageError(f"{file}: there is no line; needed: a puzzle a line.")
    return lines


def read_numbered(path: str | Path, side: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """The grids (N, S) uint8 of a text file (see `numbered_lines`) and their line numbers (N,).

    UsageError for a file that can't be read or has no grid, or for the first line that is none.
    """
    lines = numbered_lines(path)
    try:
        grids = [parse(line, number, side) for number, line in lines]
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    return np.stack(grids), np.array([number for number, _ in lines])


def read(path: str | Path, side: int = 9) -> np.ndarray:
    """The grids (N, S) uint8 of a text file, as `read_numbered`."""
    return read_numbered(path, side)[0]


def text(grid: np.ndarray) -> str:
    """The line of a grid (S,), 0 for a blank cell."""
    return "".join(map(str, grid.tolist()))


def valid(grids: np.ndarray) -> np.ndarray:
    """Which grids (N, S) are solutions: every digit once in each row, column and box. (N,) bool."""
    side = side_of(grids.shape[1])
    wanted = np.arange(1, side + 1)
    return np.logical_and.reduce(
        [(np.sort(units, axis=2) == wanted).all(axis=(1, 2)) for units in _units(grids, side)]
    )  # fmt: skip


def _units(grids: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and boxes of grids (N, S), each (N, side, side)."""
    height, width = box_of(side)
    rows = grids.reshape(-1, side, side)
    boxes = grids.reshape(-1, width, height, height, width).swapaxes(2, 3).reshape(-1, side, side)
    return rows, rows.swapaxes(1, 2), boxes


def symmetries(count: int, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random symmetries, uniform over the group: which cell comes to each place (N, S), and new digits (N, side + 1).

    `apply` performs them; new digits of 0 are 0.
    """
    height, width = box_of(side)
    rows = _lines(count, width, height, rng)[:, :, None]  # `width` bands of `height` rows
    columns = _lines(count, height, width, rng)[:, None, :]
    cells = rows * side + columns
    if height == width:
        cells = np.where(rng.random(count)[:, None, None] < 0.5, cells, columns * side + rows)
    order = np.argsort(rng.random((count, side)), axis=1) + 1
    return cells.reshape(count, -1), np.concatenate([np.zeros((count, 1), order.dtype), order], axis=1)


def _lines(count: int, groups: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Random orders (N, groups x size) of lines that keep groups of `size` together."""
    outer = np.argsort(rng.random((count, groups)), axis=1)
    inner = np.argsort(rng.random((count, groups, size)), axis=2)
    return (outer[:, :, None] * size + inner).reshape(count, -1)


def apply(grids: np.ndarray, cells: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Grids (N, S) after a symmetry each, from `symmetries`."""
    moved = np.take_along_axis(grids, cells, axis=1)
    return np.take_along_axis(digits, moved.astype(np.intp), axis=1).astype(grids.dtype)


def shuffled(puzzle: np.ndarray, solution: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A puzzle (S,) and its solution (S,) after one random symmetry."""
    cells, digits = symmetries(1, side_of(len(puzzle)), rng)
    return apply(puzzle[None], cells, digits)[0], apply(solution[None], cells, digits)[0]


def tokens(grids: np.ndarray) -> np.ndarray:
    """Grids (N, S) as a network reads them: digit + 1, so 1 is a blank cell; 0 would fill up and does not occur."""
    return grids + np.uint8(1)


def augmented(x: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Puzzles and solutions in tokens (N, S), each pair after a random symmetry of its own."""
    cells, order = symmetries(len(x), side_of(x.shape[1]), rng)
    order = np.concatenate([np.zeros((len(x), 1), order.dtype), order + 1], axis=1)
    return apply(x, cells, order), apply(label, cells, order)


def invariant(puzzles: np.ndarray) -> np.ndarray:
    """Hashes (N,) uint64 of puzzles (N, S) that are equal for puzzles equal up to symmetry.

    Cells are coloured as blank or given; then each gets a new colour from the colours in its row, column, box and the
    box's part of its row and column, and of the cells that hold its digit, a few times over (Weisfeiler and Leman's
    refinement). Different puzzles may share a hash where the refinement can't tell them apart; equal ones never differ.
    """
    parts = [_coloured(puzzles[start : start + CHUNK]) for start in range(0, len(puzzles), CHUNK)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _coloured(puzzles: np.ndarray) -> np.ndarray:
    side = side_of(puzzles.shape[1])
    height, width = box_of(side)
    shape = (len(puzzles), width, height, height, width)
    colour = _mixed((puzzles > 0).astype(np.uint64))
    holds = [puzzles == digit for digit in range(1, side + 1)]
    for _ in range(ROUNDS):
        grid = colour.reshape(shape)
        lines = np.zeros_like(grid)
        for line, shared in (((3, 4), 4), ((1, 2), 2)):  # rows and columns count alike
            lines += _mixed(_mixed(grid.sum(axis=line, keepdims=True)) + grid.sum(axis=shared, keepdims=True))
        boxes = _mixed(grid.sum(axis=(2, 4), keepdims=True) + np.uint64(1))
        alike = np.zeros_like(colour)
        for own in holds:
            total = _mixed((colour * own).sum(axis=1, keepdims=True) + np.uint64(2))
            alike += own * total
        colour = _mixed(colour + _mixed((lines + boxes).reshape(colour.shape)) + _mixed(alike))
    return _mixed(colour.sum(axis=1))


def _mixed(x: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers in which every bit depends on all (the finisher of Steele et al.'s SplitMix64)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
