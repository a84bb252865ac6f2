"""ARC's grids as tokens, and the augmentations of a task with their names.

A grid is (rows, columns) uint8 of the colours 0 to 9, at most 30 x 30. Its tokens (900,) uint8 are those of HRM's
builder (github.com/sapientinc/HRM, dataset/build_arc_dataset.py): 0 pads, 1 ends the grid on its right and below, 2 +
colour. An augmentation is a symmetry of the square (domains/dihedral.py) after an exchange of the colours 1 to 9. Its
name, which is that of a puzzle identifier, is "TASK|||t<symmetry>|||<what becomes of the colours 0 to 9>", as in TRM's
builder; "TASK" alone is the task itself.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from domains import dihedral
from runtime.errors import UsageError

SIDE = 30
LENGTH = SIDE * SIDE
VOCABULARY = 12
COLOURS = 10
END = 1
SEPARATOR = "|||"
Pair = Sequence[np.ndarray]


def grid_of(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """A grid from nested lists; UsageError for a shape beyond 1 to 30 rows and columns, or colours beyond 0 to 9."""
    try:
        grid = np.array(rows, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"an ARC grid is rows of equally many whole numbers, got {str(rows)[:80]}.") from error
    if grid.ndim != 2 or not 1 <= min(grid.shape) <= max(grid.shape) <= SIDE:
        raise UsageError(f"an ARC grid has 1 to {SIDE} rows and columns, got shape {grid.shape}.")
    if grid.min() < 0 or grid.max() >= COLOURS:
        raise UsageError(f"an ARC grid holds colours from 0 to 9, got {grid.min()} to {grid.max()}.")
    return grid.astype(np.uint8)


def tokens(grids: np.ndarray, row: int = 0, column: int = 0) -> np.ndarray:
    """Grids (..., rows, columns) as tokens (..., 900), with their first cell at (row, column)."""
    height, width = grids.shape[-2:]
    sheet = np.zeros((*grids.shape[:-2], SIDE, SIDE), np.uint8)
    sheet[..., row : row + height, column : column + width] = grids + 2
    if row + height < SIDE:
        sheet[..., row + height, column : column + width] = END
    if column + width < SIDE:
        sheet[..., row : row + height, column + width] = END
    return sheet.reshape(*grids.shape[:-2], LENGTH)


def grid(sheet: np.ndarray) -> np.ndarray:
    """The grid in tokens (900,): the largest rectangle of colours from the first cell on; of equals the flattest.

    (0, 0) where the first token is no colour. For the tokens of a grid at (0, 0), that grid.
    """
    coloured = sheet.reshape(SIDE, SIDE) >= 2
    widths = np.minimum.accumulate(np.where(coloured.all(axis=1), SIDE, coloured.argmin(axis=1)))
    areas = widths * np.arange(1, SIDE + 1)
    if not areas.max():
        return np.zeros((0, 0), np.uint8)
    height = int(areas.argmax()) + 1
    return sheet.reshape(SIDE, SIDE)[:height, : widths[height - 1]].astype(np.uint8) - 2


def augmentation(task: str, symmetry: int, colours: np.ndarray) -> str:
    """The name of an augmentation; colours (10,): what becomes of each, 0 of 0."""
    return f"{task}{SEPARATOR}t{symmetry}{SEPARATOR}{''.join(map(str, colours))}"


def parsed(name: str) -> tuple[str, int, np.ndarray]:
    """The task, the symmetry and the colours (10,) that a name stands for; UsageError for a name that is none."""
    task, *rest = name.split(SEPARATOR)
    if not rest:
        return name, 0, np.arange(COLOURS, dtype=np.uint8)
    symmetry, colours = rest[-2:] if len(rest) == 2 else ("", "")
    known = symmetry in {f"t{index}" for index in range(dihedral.COUNT)}
    if not known or sorted(colours) != list("0123456789"):
        raise UsageError(f"an augmentation is called TASK{SEPARATOR}t0 to t7{SEPARATOR}ten colours, got {name!r}.")
    return task, int(symmetry[1:]), np.array(list(colours), np.uint8)


def original(name: str) -> str:
    """The task that an augmentation is of."""
    return parsed(name)[0]


def augmented(name: str, grids: np.ndarray) -> np.ndarray:
    """Grids (..., rows, columns) of a task as the augmentation of that name shows them."""
    _, symmetry, colours = parsed(name)
    return dihedral.transformed(colours[grids], symmetry)


def inverse(name: str, grids: np.ndarray) -> np.ndarray:
    """Grids (..., rows, columns) of the augmentation of that name as the task itself shows them."""
    _, symmetry, colours = parsed(name)
    return np.argsort(colours).astype(np.uint8)[dihedral.transformed(grids, dihedral.INVERSE[symmetry])]


def key(*grids: np.ndarray) -> bytes:
    """What grids of the same shapes and colours share and no others."""
    return b"".join(bytes(grid.shape) + grid.tobytes() for grid in grids)


def canonical(pair: Pair) -> bytes:
    """What a pair of grids shares with all its augmentations and no other pair."""
    return min(key(*_renamed([dihedral.transformed(grid, index) for grid in pair])) for index in range(dihedral.COUNT))


def _renamed(grids: list[np.ndarray]) -> list[np.ndarray]:
    """Grids with their colours numbered in the order in which they first appear; 0 stays."""
    seen, first = np.unique(np.concatenate([grid.ravel() for grid in grids]), return_index=True)
    first, seen = first[seen > 0], seen[seen > 0]
    new = np.zeros(COLOURS, np.uint8)
    new[seen[np.argsort(first)]] = np.arange(1, len(seen) + 1)
    return [new[grid] for grid in grids]


def plan(task: str, pairs: Sequence[Pair], count: int, rng: np.random.Generator) -> list[str]:
    """Names of up to `count` random augmentations of a task that look different from it and from each other.

    Fewer where 5 x count draws (at least 20) don't find that many: a task of few colours has few.
    """
    names, seen = [], {_looks(task, pairs)}
    for _ in range(max(20, 5 * count)):
        if len(names) == count:
            break
        colours = np.concatenate([[0], rng.permutation(np.arange(1, COLOURS))])
        name = augmentation(task, int(rng.integers(dihedral.COUNT)), colours)
        if (look := _looks(name, pairs)) not in seen:
            seen.add(look)
            names.append(name)
    return names


def _looks(name: str, pairs: Sequence[Pair]) -> bytes:
    """A digest of the pairs under an augmentation, whatever their order."""
    _, symmetry, colours = parsed(name)
    keys = [key(*(dihedral.transformed(colours[grid], symmetry) for grid in pair)) for pair in pairs]
    return hashlib.sha256(b"".join(sorted(keys))).digest()


def leaked(train: Mapping[str, Sequence[Pair]], test: Sequence[Pair]) -> list[str]:
    """The tasks of `train` that have a pair which is, up to augmentation, one of `test`."""
    asked = {canonical(pair) for pair in test}
    return [name for name, pairs in train.items() if any(canonical(pair) in asked for pair in pairs)]
