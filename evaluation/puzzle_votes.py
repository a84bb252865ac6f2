"""Several answers to one puzzle: the puzzle under random symmetries, its answers moved back, and the vote on them."""

from collections.abc import Callable

import numpy as np

from domains import sudoku

Symmetry = Callable[[int, int, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def sudoku_symmetry(count: int, cells: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random symmetries of Sudokus of so many cells: where each cell comes from (count, S), what each token becomes.

    Tokens are 0 for padding, 1 for a blank and digit + 1.
    """
    places, digits = sudoku.symmetries(count, sudoku.side_of(cells), rng)
    return places, np.concatenate([np.zeros((count, 1), digits.dtype), digits + 1], axis=1)


SYMMETRIES: dict[str, Symmetry] = {"sudoku": sudoku_symmetry}


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
