"""All solutions up to two of many Sudokus at once: constraint propagation over a pool of search nodes.

A node is a grid of candidate sets, bit d of a cell's uint16 for digit d + 1. The nodes are the last axis, so that every
step of the propagation is a few NumPy calls on contiguous rows, whatever puzzle the nodes belong to.
"""

import numpy as np

from runtime.errors import UsageError

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}  # rows and columns of a box
POOL = 2048  # nodes propagated together: their candidates stay in a core's cache


def box_of(side: int) -> tuple[int, int]:
    """Rows and columns of a box of a grid; UsageError for a side other than 4, 6 and 9."""
    if side not in BOXES:
        raise UsageError(f"a Sudoku has side 4, 6 or 9, got {side}.")
    return BOXES[side]


def side_of(cells: int) -> int:
    """The side of a grid of so many cells; UsageError where that is not 16, 36 or 81."""
    side = round(cells**0.5)
    if side not in BOXES or side * side != cells:
        raise UsageError(f"a Sudoku has 16, 36 or 81 cells, got {cells}.")
    return side


def candidates(puzzles: np.ndarray) -> np.ndarray:
    """Candidate sets (S, N) uint16 of puzzles (N, S) uint8, 0 blank: all digits in a blank cell, else the given one."""
    side = side_of(puzzles.shape[1])
    bits = np.concatenate([[(1 << side) - 1], 1 << np.arange(side)]).astype(np.uint16)
    return np.ascontiguousarray(bits[puzzles].T)


def digits(nodes: np.ndarray) -> np.ndarray:
    """Grids (N, S) uint8 of candidate sets (S, N): the digit where one is left, 0 elsewhere."""
    single = np.bitwise_count(nodes) == 1
    return np.where(single, np.bitwise_count(nodes - np.uint16(1)) + 1, 0).astype(np.uint8).T.copy()


def solve(puzzles: np.ndarray, pool: int = POOL) -> tuple[np.ndarray, np.ndarray]:
    """Solutions (N, S) uint8 of puzzles (N, S) uint8, 0 blank, and how many each has: 0, 1 or 2 for two or more.

    The search is complete: 1 says that there is no other. Rows without a solution are 0; of several one is given.
    """
    side = side_of(puzzles.shape[1])
    if puzzles.size and puzzles.max() > side:
        raise UsageError(f"a Sudoku of side {side} holds digits up to {side}, got {puzzles.max()}.")
    solutions, counts = np.zeros_like(puzzles, np.uint8), np.zeros(len(puzzles), np.int64)
    stack = [(candidates(puzzles), np.arange(len(puzzles)))]
    nodes, owner = np.empty((side * side, 0), np.uint16), np.empty(0, np.int64)
    while True:
        nodes, owner = _refilled(nodes, owner, stack, pool)
        if not len(owner):
            return solutions, counts
        before = nodes.copy()
        single = (nodes & (nodes - np.uint16(1))).max(axis=0) == 0
        alive = propagate(nodes, side)
        solved = np.flatnonzero(alive & single)  # single before, so that the round has checked every unit
        solutions[owner[solved]] = digits(nodes[:, solved])
        np.add.at(counts, owner[solved], 1)
        alive &= ~single & (counts[owner] < 2)
        stuck = alive & ~(nodes != before).any(axis=0)
        branches, heirs = branch(nodes[:, stuck], side), owner[stuck]
        going = alive & ~stuck
        nodes = np.concatenate([nodes[:, going], *branches], axis=1)
        owner = np.concatenate([owner[going], heirs, heirs])
        np.minimum(counts, 2, out=counts)


def _refilled(
    nodes: np.ndarray, owner: np.ndarray, stack: list[tuple[np.ndarray, np.ndarray]], pool: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nodes to propagate next, `pool` at most: what is too much goes onto the stack, what lacks comes from it.

    Last in, first out, so that the stack holds about depth x pool nodes beside the puzzles not begun.
    """
    if len(owner) > pool:
        stack.append((nodes[:, pool:], owner[pool:]))
        return np.ascontiguousarray(nodes[:, :pool]), owner[:pool]
    while stack and len(owner) < pool:
        more, heirs = stack.pop()
        room = pool - len(owner)
        if len(heirs) > room:
            stack.append((more[:, room:], heirs[room:]))
        nodes = np.concatenate([nodes, more[:, :room]], axis=1)
        owner = np.concatenate([owner, heirs[:room]])
    return nodes, owner


def propagate(nodes: np.ndarray, side: int) -> np.ndarray:
    """One round of elimination in candidate sets (S, N) uint16, in place; says which nodes (N,) are not contradictory.

    Naked singles, locked candidates (of a box in one line, of a line in one box) and hidden singles. A contradiction is
    found at once or in a later round, at the latest when every cell has one candidate.
    """
    height, width = box_of(side)
    full, one = np.uint16((1 << side) - 1), np.uint16(1)
    grid = nodes.reshape(width, height, height, width, -1)  # band, row in it, stack, column in it, node
    single = np.where(grid & (grid - one), np.uint16(0), grid)
    blocked = np.zeros_like(grid)
    alive = np.ones(nodes.shape[1], bool)
    for axes in ((2, 3), (0, 1), (1, 3)):  # rows, columns, boxes
        seen = np.bitwise_or.reduce(single, axis=axes, keepdims=True)
        alive &= (seen == single.sum(axis=axes, keepdims=True, dtype=np.uint16)).all(
            axis=(0, 1, 2, 3)
        )  # no digit twice
        blocked |= seen
    np.bitwise_and(grid, ~blocked | single, out=grid)
    _lock(grid)
    hidden = np.zeros_like(grid)
    for axes, cells in (
        ((2, 3), [grid[:, :, i, j] for i in range(height) for j in range(width)]),
        ((0, 1), [grid[i, j] for i in range(width) for j in range(height)]),
        ((1, 3), [grid[:, i, :, j] for i in range(height) for j in range(width)]),
    ):
        seen, once = _counted(cells)
        alive &= (seen == full).all(axis=(0, 1))
        hidden |= np.expand_dims(once, axes)
    hidden &= grid
    np.copyto(grid, hidden, where=hidden != 0)
    return alive & (nodes.min(axis=0) > 0) & ((hidden & (hidden - one)).max(axis=(0, 1, 2, 3)) == 0)


def _counted(sets: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The digits in any of the candidate sets, and those in exactly one."""
    seen, twice = np.zeros_like(sets[0]), np.zeros_like(sets[0])
    for one in sets:
        twice |= seen & one
        seen |= one
    return seen, seen & ~twice


def _lock(grid: np.ndarray) -> None:
    """Removes from (band, row, stack, column, node), in place, digits that a box and a line confine to each other.

    A digit of a box in one of its lines only leaves the rest of the line; one of a line in one box only leaves the rest
    of the box. Three cells that a line and a box share are one set here.
    """
    for axis, in_box, in_line in ((3, 1, 2), (1, 2, 0)):  # (band, row, stack, node), then (band, stack, column, node)
        shared = np.bitwise_or.reduce(grid, axis=axis)
        lost = np.zeros_like(shared)
        for along, across in ((in_box, in_line), (in_line, in_box)):
            _, once = _counted(list(np.moveaxis(shared, along, 0)))
            confined = shared & np.expand_dims(once, along)
            lost |= np.bitwise_or.reduce(confined, axis=across, keepdims=True) & ~confined
        grid &= ~np.expand_dims(lost, axis)


def branch(nodes: np.ndarray, side: int) -> list[np.ndarray]:
    """Two nodes for each of (S, N), in which a cell with fewest candidates has its lowest one, and the others."""
    number = np.bitwise_count(nodes)
    number[number < 2] = side + 1
    cell, own = number.argmin(axis=0), np.arange(nodes.shape[1])
    sets = nodes[cell, own]
    lowest = sets & -sets
    first, second = nodes.copy(), nodes.copy()
    first[cell, own], second[cell, own] = lowest, sets & ~lowest
    return [first, second]
