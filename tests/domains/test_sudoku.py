import gzip
from itertools import permutations

import numpy as np
import pytest

from domains.sudoku import apply, invariant, parse, read, read_numbered, shuffled, solve, symmetries, text, valid
from domains.sudoku_solver import BOXES
from runtime.errors import UsageError

PUZZLE = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
SIX = "123456456123231564564231312645645312"  # boxes of 2 rows x 3 columns
FOUR = "1234341221434321"


def some_puzzles(side: int, count: int, rng: np.random.Generator, share: float = 0.4) -> np.ndarray:
    full = parse({4: FOUR, 6: SIX, 9: SOLUTION}[side], 1, side)[None].repeat(count, 0)
    grids = apply(full, *symmetries(count, side, rng))
    return np.where(rng.random(grids.shape) < share, grids, 0).astype(np.uint8)


def test_parse_and_text():
    assert text(parse(PUZZLE.replace("0", ".") + "\n", 1)) == PUZZLE
    assert text(parse(FOUR, 1, 4)) == FOUR


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (PUZZLE[:80], "line 7 has 80 characters; needed: 81"),
        (PUZZLE + "1", "line 7 has 82 characters"),
        ("a" + PUZZLE[1:], "line 7 has 'a' at character 1; needed: digits 1 to 9"),
        (PUZZLE[:5] + " " + PUZZLE[6:], "line 7 has ' ' at character 6"),
        (PUZZLE[:5] + "é" + PUZZLE[6:], "line 7 has 'é' at character 6"),
    ],
)
def test_parse_names_the_line(line, message):
    with pytest.raises(UsageError, match=message):
        parse(line, 7)


def test_files_plain_and_compressed(tmp_path):
    (tmp_path / "a.txt").write_text(f"{PUZZLE}\r\n\n{SOLUTION}\n")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(f"{PUZZLE}\n".encode()))
    grids, numbers = read_numbered(tmp_path / "a.txt")
    assert [text(grid) for grid in grids] == [PUZZLE, SOLUTION] and numbers.tolist() == [1, 3]
    assert text(read(tmp_path / "b.txt.gz")[0]) == PUZZLE
    (tmp_path / "c.txt").write_text(f"{PUZZLE}\n\n{PUZZLE[1:]}\n")
    with pytest.raises(UsageError, match=r"c\.txt: line 3 has 80"):
        read(tmp_path / "c.txt")
    (tmp_path / "d.txt").write_text("\n")
    (tmp_path / "e.gz").write_bytes(b"not compressed")
    for name in ("d.txt", "e.gz", "missing.txt"):
        with pytest.raises(UsageError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize(("side", "line"), [(4, FOUR), (6, SIX), (9, SOLUTION)])
def test_valid(side, line):
    right = parse(line, 1, side)
    grids = np.stack([right] * 4)
    grids[1, [0, 1]] = grids[1, [1, 0]]  # columns broken
    line_by_line = np.arange(side)
    grids[2] = ((line_by_line[:, None] + line_by_line) % side + 1).reshape(-1)  # boxes alone broken
    grids[3, 0] = 0
    assert valid(grids).tolist() == [True, False, False, False]


def unit_sets(side: int) -> tuple[set[frozenset[int]], set[frozenset[int]], set[frozenset[int]]]:
    height, width = BOXES[side]
    cells = np.arange(side * side).reshape(side, side)
    boxes = [cells[r : r + height, c : c + width] for r in range(0, side, height) for c in range(0, side, width)]
    return tuple({frozenset(np.ravel(unit).tolist()) for unit in units} for units in (cells, cells.T, boxes))  # type: ignore[return-value]


def whole_group(side: int) -> set[bytes]:
    """All moves of cells by lines (and the transpose) that send the set of all units to itself, tried one by one."""
    units = set().union(*unit_sets(side))
    boxes = np.zeros(side * side, int)
    for number, unit in enumerate(sorted(map(sorted, unit_sets(side)[2]))):
        boxes[unit] = number
    boxes = boxes.reshape(side, side)
    together = lambda block: {frozenset(np.flatnonzero(block == n).tolist()) for n in block.tolist()}  # noqa: E731
    bands, stacks = together(boxes[:, 0]), together(boxes[0])
    keeping = lambda parts: [p for p in permutations(range(side))  # noqa: E731
                             if {frozenset(p[i] for i in part) for part in parts} == parts]  # fmt: skip
    cells, found = np.arange(side * side).reshape(side, side), set()
    for rows in keeping(bands):
        for columns in keeping(stacks):
            moved = cells[np.ix_(rows, columns)]
            for way in (moved, moved.T):
                flat = way.reshape(-1)
                if {frozenset(flat[list(unit)].tolist()) for unit in units} == units:
                    found.add(flat.astype(np.int64).tobytes())
    return found


@pytest.mark.parametrize(("side", "size", "draws"), [(4, 128, 4000), (6, 3456, 60_000)])
def test_symmetries_are_the_whole_group_and_nothing_else(side, size, draws):
    group = whole_group(side)
    assert len(group) == size  # 2 (2!)^6; 3! (2!)^3 2! (3!)^2
    cells, digits = symmetries(draws, side, np.random.default_rng(0))
    drawn, counts = np.unique(cells, axis=0, return_counts=True)
    assert {row.astype(np.int64).tobytes() for row in drawn} == group
    mean = draws / size
    assert ((counts - mean) ** 2 / mean).sum() < size + 5 * (2 * size) ** 0.5  # uniform: chi-squared, five deviations
    assert (np.sort(digits, axis=1) == np.arange(side + 1)).all() and not digits[:, 0].any()


def test_rows_of_6x6_stay_rows():
    rows = unit_sets(6)[0]
    for cells in symmetries(200, 6, np.random.default_rng(0))[0].reshape(-1, 6, 6):
        assert {frozenset(row.tolist()) for row in cells} == rows


def test_symmetries_of_9x9_keep_the_rules_and_transpose_half_of_the_time():
    cells, digits = symmetries(2000, 9, np.random.default_rng(0))
    assert valid(apply(parse(SOLUTION, 1)[None].repeat(2000, 0), cells, digits)).all()
    transposed = cells[:, 1] // 9 != cells[:, 0] // 9
    assert 900 < transposed.sum() < 1100
    assert len(np.unique(cells, axis=0)) == 2000  # of 3,359,232
    assert len(np.unique(digits, axis=0)) > 1980


@pytest.mark.parametrize(("side", "line"), [(6, SIX), (9, SOLUTION)])
def test_shuffled_moves_puzzle_and_solution_alike(side, line):
    rng = np.random.default_rng(0)
    solution = parse(line, 1, side)
    puzzle = np.where(rng.random(side * side) < 0.7, solution, 0).astype(np.uint8)
    other, answer = shuffled(puzzle, solution, rng)
    assert valid(answer[None]).all() and (other[other > 0] == answer[other > 0]).all()
    assert (other > 0).sum() == (puzzle > 0).sum() and (answer != solution).any()
    assert solve(other[None])[1] == solve(puzzle[None])[1]


@pytest.mark.parametrize("side", [4, 6, 9])
def test_the_invariant_is_one(side):
    rng = np.random.default_rng(side)
    puzzles = some_puzzles(side, 300, rng)
    assert (invariant(apply(puzzles, *symmetries(300, side, rng))) == invariant(puzzles)).all()


def canonical(puzzle: np.ndarray, moves: np.ndarray) -> bytes:
    """The least of all grids that a symmetry makes of a 4x4 puzzle, digits named in the order of appearance."""
    best = b"\xff"
    for moved in puzzle[moves]:
        names = {0: 0}
        best = min(best, bytes(names.setdefault(digit, len(names)) for digit in moved.tolist()))
    return best


def test_the_invariant_tells_all_4x4_puzzles_apart():
    moves = np.unique(symmetries(4000, 4, np.random.default_rng(0))[0], axis=0)
    puzzles = some_puzzles(4, 500, np.random.default_rng(1))
    forms = np.array([canonical(puzzle, moves) for puzzle in puzzles])
    pairs = set(zip(forms.tolist(), invariant(puzzles).tolist(), strict=True))
    assert len(pairs) == len(set(forms.tolist())) == len({h for _, h in pairs}) > 100


def test_the_invariant_tells_a_6x6_puzzle_from_its_transpose_and_close_puzzles_apart():
    puzzles = some_puzzles(6, 200, np.random.default_rng(2))
    flipped = puzzles.reshape(-1, 6, 6).swapaxes(1, 2).reshape(-1, 36)
    assert (invariant(puzzles) != invariant(flipped)).mean() > 0.98
    puzzle = parse(PUZZLE, 1)
    fewer = np.stack([np.where(np.arange(81) == cell, 0, puzzle) for cell in np.flatnonzero(puzzle)])
    assert len(np.unique(invariant(np.concatenate([puzzle[None], fewer])))) == 1 + len(fewer)
    assert invariant(np.empty((0, 81), np.uint8)).shape == (0,)
