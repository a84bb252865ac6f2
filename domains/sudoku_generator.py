"""Made-up Sudokus with one solution: random complete grids, from which clues are taken away."""

import numpy as np

from domains.sudoku import invariant
from domains.sudoku_solver import POOL, candidates, digits, propagate, solve
from runtime.errors import UsageError

TRIES = 7  # each of twice as many grids as the last


def generated(
    count: int, side: int, rng: np.random.Generator, blanks: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Puzzles and their only solutions, (count, S) uint8 each, 0 blank, no two puzzles equal up to symmetry.

    Clues of random complete grids (not uniformly drawn) go in a random order as long as the solution stays the only
    one. blanks: how many go, from grids that allow it; None: all that can, so that the puzzle is minimal. UsageError
    where there are too few such puzzles: of side 4, 36 are minimal.
    """
    if blanks is not None and not 0 <= blanks < side * side:
        raise UsageError(f"blanks must lie in 0..{side * side - 1} for side {side}, got {blanks}.")
    puzzles, solutions = (np.empty((0, side * side), np.uint8) for _ in range(2))
    for turn in range(TRIES):
        full = complete(count << turn, side, rng)
        made = _thinned(full, rng, blanks)
        fit = (made == 0).sum(axis=1) == blanks if blanks is not None else np.ones(len(made), bool)
        puzzles, solutions = np.concatenate([puzzles, made[fit]]), np.concatenate([solutions, full[fit]])
        first = np.sort(np.unique(invariant(puzzles), return_index=True)[1])[:count]
        puzzles, solutions = puzzles[first], solutions[first]
        if len(puzzles) == count:
            return puzzles, solutions
    raise UsageError(
        f"there are too few puzzles of side {side} with {'as many' if blanks is None else blanks} blanks"
        f"{' as can be' if blanks is None else ''}: {len(puzzles)} of {count} found among {(count << TRIES) - count:,}."
    )


def _thinned(full: np.ndarray, rng: np.random.Generator, blanks: int | None) -> np.ndarray:
    """Complete grids (N, S) without clues that aren't needed, at most `blanks` of them."""
    puzzles, rows = full.copy(), np.arange(len(full))
    for cell in rng.permuted(np.tile(np.arange(full.shape[1]), (len(full), 1)), axis=1).T:
        fewer = puzzles.copy()
        fewer[rows, cell] = 0
        wanted = np.ones(len(full), bool) if blanks is None else (puzzles == 0).sum(axis=1) < blanks
        wanted[wanted] = solve(fewer[wanted])[1] == 1
        puzzles[wanted] = fewer[wanted]
    return puzzles


def complete(count: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Random complete grids (count, S) uint8: a cell with few candidates left gets one of them, until all are set."""
    found = [np.empty((0, side * side), np.uint8)]
    while (missing := count - sum(map(len, found))) > 0:
        nodes = candidates(np.zeros((min(missing, POOL), side * side), np.uint8))
        while nodes.shape[1]:
            before = nodes.copy()
            single = (np.bitwise_count(nodes) == 1).all(axis=0)
            alive = propagate(nodes, side)
            found.append(digits(nodes[:, alive & single]))
            stuck = np.flatnonzero(alive & ~single & ~(nodes != before).any(axis=0))
            number = np.bitwise_count(nodes[:, stuck]) + rng.random((len(nodes), len(stuck)))
            cell = np.where(number < 2, np.inf, number).argmin(axis=0)
            has = nodes[cell, stuck] >> np.arange(side, dtype=np.uint16)[:, None] & 1
            nodes[cell, stuck] = np.left_shift(1, (has * (1 + rng.random(has.shape))).argmax(axis=0))
            nodes = nodes[:, alive & ~single]
    return np.concatenate(found)
