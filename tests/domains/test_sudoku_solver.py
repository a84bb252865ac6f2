"""The solver beside a plain backtracking search of its own."""

import numpy as np
import pytest

from domains.sudoku import apply, symmetries, valid
from domains.sudoku_solver import BOXES, propagate, solve
from runtime.errors import UsageError

KNOWN = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
KNOWN_SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
HARD = [  # of the sets forum_hardest_1905 (the first two), 17_clue and magictour_top1465
    "980700600750040000003008070500007030009400000000020100300000001090005080005200006",
    "980700600500090070007004000400032700006500090000000301100080500020000000005400080",
    "000000000000000001000002030000003020001040000005000060030000004070080009620007000",
    "400030000000600800000000001000050090080000600070200000000102700503000040900000000",
]


def grid(line: str) -> np.ndarray:
    return np.array([list(map(int, line))], np.uint8)


def peers(side: int) -> list[set[int]]:
    height, width = BOXES[side]
    place = [(r, c, r // height * 10 + c // width) for r in range(side) for c in range(side)]
    return [{j for j, q in enumerate(place) if j != i and any(a == b for a, b in zip(p, q, strict=True))}
            for i, p in enumerate(place)]  # fmt: skip


def searched(puzzle: np.ndarray, most: int = 2) -> list[list[int]]:
    """Up to `most` solutions, cell by cell: the cell with fewest digits left first."""
    side = round(len(puzzle) ** 0.5)
    near, cells, found = peers(side), puzzle.tolist(), []
    if any(cells[i] and any(cells[j] == cells[i] for j in near[i]) for i in range(len(cells))):
        return []

    def deeper():
        blank = [i for i, digit in enumerate(cells) if not digit]
        if not blank:
            found.append(cells.copy())
            return
        open_digits = [(set(range(1, side + 1)) - {cells[j] for j in near[i]}, i) for i in blank]
        digits, cell = min(open_digits, key=lambda pair: len(pair[0]))
        for digit in sorted(digits):
            cells[cell] = digit
            deeper()
            cells[cell] = 0
            if len(found) == most:
                return

    deeper()
    return found


def puzzles(side: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Solvable ones with many or few givens, and some of them with a given changed."""
    full = np.array([searched(np.zeros(side * side, np.uint8), 1)[0]], np.uint8).repeat(count, 0)
    full = apply(full, *symmetries(count, side, rng))
    kept = rng.random(full.shape) < rng.uniform(0.1, 0.6, (count, 1))
    wrong = (rng.random(count) < 0.3)[:, None] & (rng.random(full.shape) < 1 / full.shape[1])
    return np.where(kept, np.where(wrong, full % side + 1, full), 0).astype(np.uint8)


@pytest.mark.parametrize(("side", "count"), [(4, 400), (6, 120)])
def test_counts_and_solutions_are_those_of_a_plain_search(side, count):
    given = puzzles(side, count, np.random.default_rng(side))
    solutions, counts = solve(given)
    expected = [searched(puzzle) for puzzle in given]
    assert counts.tolist() == [len(found) for found in expected]
    assert set(counts) == {0, 1, 2}
    for solution, found in zip(solutions.tolist(), expected, strict=True):
        if len(found) == 1:
            assert solution == found[0]
    assert valid(solutions[counts > 0]).all() and not solutions[counts == 0].any()
    assert ((given == 0) | (given == solutions))[counts > 0].all()


@pytest.mark.parametrize("line", HARD)
def test_hard_puzzles(line):
    solutions, counts = solve(grid(line))
    assert counts.tolist() == [1] and solutions.tolist() == searched(grid(line)[0])


def test_a_published_puzzle_and_solution():
    solutions, counts = solve(grid(KNOWN))
    assert counts.tolist() == [1] and (solutions == grid(KNOWN_SOLUTION)).all()
    assert solve(solutions)[1].tolist() == [1]


def test_two_none_and_many_solutions():
    # a rectangle of two digits over two boxes can be filled in two ways
    full = grid(KNOWN_SOLUTION)
    cells = next(
        [9 * r + c, 9 * r + d, 9 * q + c, 9 * q + d]
        for r in range(9) for q in range(r // 3 * 3, r) for c in range(9) for d in range(c)
        if c // 3 != d // 3 and full[0, 9 * r + c] == full[0, 9 * q + d] and full[0, 9 * r + d] == full[0, 9 * q + c]
    )  # fmt: skip
    two = full.copy()
    two[0, cells] = 0
    twice, empty = grid(KNOWN), np.zeros((1, 81), np.uint8)
    twice[0, 2] = 5  # a second 5 in the first row
    stuck = grid("000000012" + "000000300" + "000000400" + "000" * 18)
    stuck[0, [33, 42]] = 5, 6  # givens that agree with each other
    counts = solve(np.concatenate([two, twice, empty, stuck]))[1]
    assert counts.tolist() == [2, 0, 2, min(2, len(searched(stuck[0])))]
    assert len(searched(two[0])) == 2


def test_the_pool_changes_neither_counts_nor_solutions():
    given = puzzles(6, 60, np.random.default_rng(1))
    (one, few), (other, many) = solve(given, pool=3), solve(given)
    assert few.tolist() == many.tolist() and (one == other)[many < 2].all()
    assert solve(np.concatenate([grid(line) for line in HARD]), pool=1)[1].tolist() == [1] * 4


def test_propagation_removes_no_digit_of_the_solution():
    solution = grid(KNOWN_SOLUTION)
    solutions = apply(solution.repeat(300, 0), *symmetries(300, 9, np.random.default_rng(2)))
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 512, solutions.shape)  # any candidate sets that contain the solution
    noise[rng.random(noise.shape) < 0.3] = 0
    nodes = np.ascontiguousarray(((1 << (solutions.astype(int) - 1)) | noise).astype(np.uint16).T)
    before = nodes.copy()
    assert propagate(nodes, 9).all()
    assert ((nodes >> (solutions.T - np.uint16(1))) & 1).all()
    assert (nodes & ~before == 0).all() and (nodes != before).any()


def test_bad_shapes_and_digits_are_refused():
    with pytest.raises(UsageError, match="16, 36 or 81 cells, got 25"):
        solve(np.zeros((1, 25), np.uint8))
    with pytest.raises(UsageError, match="up to 4, got 5"):
        solve(np.full((1, 16), 5, np.uint8))
    assert solve(np.zeros((0, 81), np.uint8))[1].shape == (0,)
