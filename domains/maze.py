"""Square mazes of random walls with the shortest path as answer: drawing, labelling, symmetries.

Tokens as in HRM's builder (github.com/sapientinc/HRM, dataset/build_maze_dataset.py): 0 pads, then wall, open cell,
start, goal, path. A maze (S,) uint8, S = side x side, row by row, has one start and one goal; its label is the maze
with the open cells of one shortest path marked. Of equally short paths it is the one that a breadth-first search from
the start finds that looks down, left, right, up and keeps a cell's first parent; which is the first when paths are
sorted by their moves in that order. A symmetry of the square keeps a path's length but not this order, so the label of
a turned maze is found anew instead of turned with it (HRM's and TRM's builders turn it).
"""

from collections.abc import Iterator

import numpy as np

from domains import dihedral
from runtime.errors import UsageError

WALL, OPEN, START, GOAL, PATH = 1, 2, 3, 4, 5
VOCABULARY = 6
LARGEST = 32  # cells of a row: a bit each of a uint32
CHARACTERS = "# SGo"  # of walls, open cells, start, goal, path, as in HRM's builder; "." is an open cell too
MOVES = ((1, 0), (0, -1), (0, 1), (-1, 0))  # down, left, right, up
CHUNK = 1024  # mazes searched together: their bits stay in a core's cache


def side_of(cells: int) -> int:
    """The side of a square of so many cells; UsageError where there is none or it exceeds 32."""
    side = round(cells**0.5)
    if side * side != cells or not 2 <= side <= LARGEST:
        raise UsageError(f"a maze is a square with a side from 2 to {LARGEST}, got {cells} cells.")
    return side


def parse(line: str, number: int, side: int) -> np.ndarray:
    """The maze (S,) uint8 in a line of S characters: # wall, . or a space open, S start, G goal.

    UsageError that names the line where it has others, too few or too many, or not one start and one goal.
    """
    text = line.rstrip("\r\n").replace(".", " ")
    if len(text) != side * side:
        raise UsageError(f"line {number} has {len(text)} characters; needed: {side * side}, one a cell.")
    known = CHARACTERS[: GOAL - WALL + 1]
    for place, character in enumerate(text, 1):
        if character not in known:
            raise UsageError(f"line {number} has {character!r} at character {place}; needed: # for a wall, . or a "
                             "space for an open cell, S and G.")  # fmt: skip
    starts, goals = (text.count(character) for character in "SG")
    if (starts, goals) != (1, 1):
        raise UsageError(f"line {number} has {starts} S and {goals} G; needed: one start and one goal.")
    return np.array([known.index(character) + WALL for character in text], np.uint8)


def text(cells: np.ndarray) -> str:
    """A maze or an answer (S,) as a line, . for open cells, o for the path, ? for what is no cell of a maze."""
    names = f"?{CHARACTERS}".replace(" ", ".")
    return "".join(names[cell] if cell < len(names) else "?" for cell in cells)


def solve(mazes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N, S) of mazes (N, S), and the moves (N,) from start to goal, 0 where there is no way."""
    parts = [_solved(mazes[first : first + CHUNK]) for first in range(0, len(mazes), CHUNK)]
    if not parts:
        return mazes.copy(), np.zeros(0, np.int64)
    return np.concatenate([labels for labels, _ in parts]), np.concatenate([moves for _, moves in parts])


def _solved(mazes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    side, rows = side_of(mazes.shape[1]), np.arange(len(mazes))
    levels = list(_levels(_bits(mazes != WALL, side), _bits(mazes == GOAL, side)))
    place = (mazes == START).argmax(axis=1)
    at_start = np.stack([_holds(level, rows, place, side) for level in levels])  # (T, N)
    moves = np.where(at_start.any(axis=0), at_start.argmax(axis=0), 0)
    padded = np.zeros((len(levels), len(mazes), side + 2), np.uint64)  # walls all around
    for level, bits in zip(padded, levels, strict=True):
        level[:, 1:-1] = bits.astype(np.uint64) << np.uint64(1)
    down, across = np.transpose(MOVES)
    labels, going, left = mazes.copy(), rows[moves > 0], moves[moves > 0]
    row, column = np.divmod(place[going], side)
    while len(going):
        left = left - 1
        found = padded[left[:, None], going[:, None], row[:, None] + 1 + down]
        nearer = found >> (column[:, None] + 1 + across).astype(np.uint64) & np.uint64(1)
        chosen = nearer.argmax(axis=1)
        row, column = row + down[chosen], column + across[chosen]
        on = left > 0
        going, left, row, column = going[on], left[on], row[on], column[on]
        labels[going, row * side + column] = PATH
    return labels, moves


def _bits(cells: np.ndarray, side: int) -> np.ndarray:
    """Cells (N, S) bool as rows (N, side) uint32, column j in bit j."""
    grid = cells.reshape(-1, side, side)
    return (grid << np.arange(side, dtype=np.uint32)).sum(axis=2, dtype=np.uint32)


def _holds(bits: np.ndarray, rows: np.ndarray, place: np.ndarray, side: int) -> np.ndarray:
    """Whether bits (N, side) have cell `place` (n,) of maze `rows` (n,)."""
    return (bits[rows, place // side] >> (place % side).astype(np.uint32) & 1).astype(bool)


def _levels(free: np.ndarray, begin: np.ndarray) -> Iterator[np.ndarray]:
    """The free cells at 0, 1, 2, ... moves from `begin`, all of (N, side) uint32, until there are none."""
    new, rest = begin, free & ~begin
    while new.any():
        yield new
        reached = new << np.uint32(1) | new >> np.uint32(1)
        reached[:, 1:] |= new[:, :-1]
        reached[:, :-1] |= new[:, 1:]
        new = reached & rest
        rest = rest & ~new


def drawn(
    side: int, shortest: int, rng: np.random.Generator, walls: tuple[float, float] = (0.3, 0.5)
) -> Iterator[np.ndarray]:
    """Random mazes without end, (n, S) at a time, whose goal is at least `shortest` moves away from the start.

    A maze's share of walls is uniform in `walls`, each cell is one with that chance, the start is any open cell and
    the goal any of those far enough; a maze that has none is drawn anew. Maze-Hard is of side 30 and 110 moves. To draw
    start and goal together until they are far enough would prefer mazes with many far goals a little. UsageError where
    a million draws give none.
    """
    if not 2 <= side <= LARGEST or not 1 <= shortest < side * side or not 0 <= walls[0] <= walls[1] < 1:
        raise UsageError(
            f"mazes need a side from 2 to {LARGEST}, a path of 1 to side^2 - 1 moves and shares of walls from 0 up to "
            f"1, got side {side}, {shortest} moves, walls {walls[0]} to {walls[1]}."
        )
    in_vain = 0
    while in_vain < 1_000_000:
        mazes = _tried(CHUNK, side, shortest, rng, walls)
        in_vain = 0 if len(mazes) else in_vain + CHUNK
        if len(mazes):
            yield mazes
    raise UsageError(f"a million random mazes of side {side} had no path of {shortest} moves; ask for less.")


def _tried(count: int, side: int, shortest: int, rng: np.random.Generator, walls: tuple[float, float]) -> np.ndarray:
    """Those of `count` random mazes that have a goal far enough."""
    share = rng.uniform(*walls, (count, 1)).astype(np.float32)
    free = rng.random((count, side * side), np.float32) >= share
    start = (free * rng.random(free.shape, np.float32)).argmax(axis=1)
    bits, begin = _bits(free, side), np.zeros((count, side), np.uint32)
    begin[np.arange(count), start // side] = np.uint32(1) << (start % side).astype(np.uint32)
    far = np.zeros_like(bits)
    for moves, level in enumerate(_levels(bits, begin)):
        if moves >= shortest:
            far |= level
    able = far.any(axis=1)
    goals = (far[able, :, None] >> np.arange(side, dtype=np.uint32) & 1).reshape(-1, side * side)
    goal = (goals * rng.random(goals.shape, np.float32)).argmax(axis=1)
    mazes, rows = np.where(free[able], OPEN, WALL).astype(np.uint8), np.arange(len(goal))
    mazes[rows, start[able]], mazes[rows, goal] = START, GOAL
    return mazes


def canonical(maze: np.ndarray) -> bytes:
    """What a maze (S,) shares with its eight images under the square's symmetries and with no other maze."""
    side = side_of(len(maze))
    grid = maze.reshape(side, side)
    return min(dihedral.transformed(grid, index).tobytes() for index in range(dihedral.COUNT))


def augmented(mazes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mazes (N, S) and their labels, each under a random symmetry of the square with the label that the rule gives."""
    side = side_of(mazes.shape[1])
    moved, new, chosen = mazes.copy(), labels.copy(), rng.integers(dihedral.COUNT, size=len(mazes))
    for index in range(1, dihedral.COUNT):
        own = chosen == index
        grids = dihedral.transformed(mazes[own].reshape(-1, side, side), index)
        moved[own] = grids.reshape(-1, side * side)
    turned = chosen > 0
    new[turned] = solve(moved[turned])[0]
    return moved, new


def keeps(mazes: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Which answers (N, S) leave all cells of their mazes as they are but for open ones that are marked. (N,) bool."""
    return ((answers == mazes) | ((answers == PATH) & (mazes == OPEN))).all(axis=1)


def shortest(mazes: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Which answers (N, S) are their mazes with one shortest path marked, be it the label's or not. (N,) bool."""
    marked = answers == PATH
    _, moves = solve(mazes)
    _, along = solve(np.where(marked | (mazes == START) | (mazes == GOAL), mazes, WALL).astype(np.uint8))
    return keeps(mazes, answers) & (moves > 0) & (along > 0) & (marked.sum(axis=1) == moves - 1)
