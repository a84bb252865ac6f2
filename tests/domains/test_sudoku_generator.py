import numpy as np
import pytest

from domains.sudoku import invariant, solve, valid
from domains.sudoku_generator import complete, generated
from runtime.errors import UsageError


def test_all_36_minimal_puzzles_of_side_4_are_found_and_no_more():
    """There are 36 up to symmetry: 13 of 4 clues, 22 of 5 and 1 of 6 (a count known from enumeration)."""
    puzzles, solutions = generated(36, 4, np.random.default_rng(0))
    assert np.bincount((puzzles > 0).sum(axis=1)).tolist() == [0, 0, 0, 0, 13, 22, 1]
    assert valid(solutions).all()
    with pytest.raises(UsageError, match="too few puzzles of side 4 with as many blanks as can be: 36 of 40"):
        generated(40, 4, np.random.default_rng(0))


@pytest.mark.parametrize(("side", "count", "blanks"), [(4, 60, 8), (6, 40, None), (6, 40, 20), (9, 5, 45)])
def test_puzzles_have_one_solution_and_the_blanks_asked_for(side, count, blanks):
    puzzles, solutions = generated(count, side, np.random.default_rng(1), blanks)
    found, counts = solve(puzzles)
    assert (counts == 1).all() and (found == solutions).all() and valid(solutions).all()
    assert len(np.unique(invariant(puzzles))) == count
    if blanks is not None:
        assert ((puzzles == 0).sum(axis=1) == blanks).all()
        return
    for cell in range(side * side):  # minimal: without any one clue there are several solutions
        given = puzzles[:, cell] > 0
        fewer = puzzles.copy()
        fewer[:, cell] = 0
        assert (solve(fewer[given])[1] == 2).all()


def test_complete_grids_are_of_every_kind():
    grids = complete(3000, 4, np.random.default_rng(0))
    assert len(grids) == 3000 and valid(grids).all()
    assert len(np.unique(grids, axis=0)) == 288  # all there are


def test_the_same_generator_gives_the_same_puzzles():
    one, other = (generated(20, 6, np.random.default_rng(5))[0] for _ in range(2))
    assert (one == other).all()


def test_impossible_numbers_are_refused():
    with pytest.raises(UsageError, match=r"blanks must lie in 0..15 for side 4, got 16"):
        generated(1, 4, np.random.default_rng(0), 16)
    with pytest.raises(UsageError, match="too few puzzles of side 4 with 13 blanks: 0 of 3"):
        generated(3, 4, np.random.default_rng(0), 13)
