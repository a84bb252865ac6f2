"""Several answers to one puzzle: the puzzle under further symmetries, its answers moved back, and the vote on them."""

from collections.abc import Callable

import numpy as np

from domains import dihedral, maze, sudoku
from runtime.errors import UsageError

Moves = tuple[np.ndarray, np.ndarray]
Symmetry = Callable[[int, int, int, np.random.Generator], Moves]
"""(how many have been before, the puzzle itself among them; puzzles N; their cells S; a source of random numbers) ->
where each cell comes from (N, S), what each token becomes (N, V)."""


def sudoku_symmetry(number: int, count: int, cells: int, rng: np.random.Generator) -> Moves:
    """A random symmetry for each Sudoku. Tokens are 0 for padding, 1 for a blank and digit + 1."""
    places, digits = sudoku.symmetries(count, sudoku.side_of(cells), rng)
    return places, np.concatenate([np.zeros((count, 1), digits.dtype), digits + 1], axis=1)


def maze_symmetry(number: int, count: int, cells: int, rng: np.random.Generator) -> Moves:
    """The square's symmetry of that number for all mazes."""
    side = maze.side_of(cells)
    places = dihedral.transformed(np.arange(cells).reshape(side, side), number).reshape(1, cells)
    return places.repeat(count, axis=0), np.arange(maze.VOCABULARY)[None].repeat(count, axis=0)


SYMMETRIES: dict[str, Symmetry] = {"sudoku": sudoku_symmetry, "maze": maze_symmetry}
MOST = {"maze": dihedral.COUNT}  # symmetries there are, where they aren't drawn


def check_votes(symmetry: str | None, votes: int) -> None:
    """Raises UsageError for more votes than there are symmetries."""
    if votes > 1 and symmetry is None:
        raise UsageError(f"votes={votes} needs a symmetry, {' or '.join(SYMMETRIES)}, got null.")
    if symmetry in MOST and votes > MOST[symmetry]:
        raise UsageError(f"a {symmetry} has {MOST[symmetry]} symmetries; needed: as many votes at most, got {votes}.")


def moved(grids: np.ndarray, places: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Token grids (N, S) after a symmetry each; the arguments' argsort along the last axis is the inverse."""
    taken = np.take_along_axis(grids, places, axis=1)
    return np.take_along_axis(tokens, taken, axis=1).astype(grids.dtype)


def voted(answers: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Of answers (V, N, S) the most frequent for each puzzle (N, S); among equally frequent ones the most trusted.

    trust (V, N): halting logits; an answer's is the sum over its voters. The first of equals wins.
    """
    same = (answers[:, None] == answers[None]).all(axis=-1)  # (V, V, N)
    count = same.sum(axis=1)
    total = np.where(same, trust[None], 0).sum(axis=1)
    best = np.where(count == count.max(axis=0), total, -np.inf).argmax(axis=0)
    return answers[best, np.arange(answers.shape[1])]
