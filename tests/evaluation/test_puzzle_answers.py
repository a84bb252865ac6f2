"""Which answer counts, which puzzles are tried again, and when a try ends; the solver is scripted."""

import numpy as np
import pytest

from domains import dihedral, maze, sudoku
from evaluation.puzzle_answers import MAZE, SUDOKU, by_the_rules, solve, to_grids
from evaluation.puzzle_solver import Solved
from runtime.errors import UsageError

SOLUTION = np.array([1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1], np.uint8)
S = len(SOLUTION)


def puzzles(count):
    """Puzzles of side 4 with one solution: symmetries of SOLUTION with four cells blank."""
    rng = np.random.default_rng(0)
    grids = np.stack([sudoku.shuffled(SOLUTION, SOLUTION, rng)[0] for _ in range(count)])
    grids[np.arange(count)[:, None], np.arange(0, S, 5)] = 0
    return grids


class Scripted:
    """Solves exactly, but in each try what `spoiled(row, tokens)` makes of the answer; notes what it was asked."""

    def __init__(self, spoiled):
        self.spoiled, self.asked = spoiled, []

    def __call__(self, tokens, steps, done, told=int):
        self.asked.append(tokens)
        answers = sudoku.solve(to_grids(tokens))[0].astype(np.int32) + 1
        answers = np.stack([self.spoiled(len(self.asked), row, answer.copy()) for row, answer in enumerate(answers)])
        told(len(tokens))
        return Solved(answers, np.zeros(len(tokens), np.float32), np.full(len(tokens), 3))


def test_what_is_unsolved_is_tried_again_and_its_answer_moved_back():
    given = puzzles(6)

    def spoiled(time, row, answer):  # the first try fails for odd rows, the second for the first of those left
        if (time == 1 and row % 2) or (time == 2 and row == 0):
            answer[0] = answer[0] % 4 + 2
        return answer

    told, solver = [], Scripted(spoiled)
    found = solve(solver, SUDOKU, given, 5, votes=4, told=told.append)  # type: ignore[arg-type]
    assert [len(tokens) for tokens in solver.asked] == [6, 3, 1] and sum(told) == 10
    assert (
        found.valid.all() and found.tries.tolist() == [1, 3, 1, 2, 1, 2] and found.steps.tolist() == [3, 9, 3, 6, 3, 6]
    )
    np.testing.assert_array_equal(found.grids, sudoku.solve(given)[0])
    assert not any(np.array_equal(tokens, given[[1, 3, 5]] + 1) for tokens in solver.asked[1:])  # another symmetry


def test_what_is_wrong_with_an_answer_is_told():
    given = puzzles(4)

    def spoiled(time, row, answer):
        if row == 0:  # two bands swapped: the rules hold, clues don't
            return answer[np.r_[8:16, 0:8]]
        if row == 1:  # a blank cell gets its neighbour's digit
            answer[0] = answer[1]
        return answer * 0 if row == 2 else answer

    found = solve(Scripted(spoiled), SUDOKU, given, 5)  # type: ignore[arg-type]
    assert found.lawful.tolist() == [True, False, False, True] and found.faithful.tolist() == [False, True, False, True]
    assert found.valid.tolist() == [False, False, False, True] and found.grids[2].max() == 0
    assert found.tries.tolist() == [1] * 4


def test_votes_outnumber_a_single_answer():
    given = puzzles(1)

    def spoiled(time, row, answer):  # of three tries two give the same wrong grid of one digit, under any symmetry
        return np.ones(S, np.int32) if time != 1 else answer * 0 + 2

    found = solve(Scripted(spoiled), SUDOKU, given, 5, votes=3)  # type: ignore[arg-type]
    assert found.tries[0] == 3 and not found.valid[0] and found.grids.max() == 0  # token 1, a blank, stays one


def test_a_try_ends_at_the_solution_alone():
    given = puzzles(4)
    true = sudoku.solve(given)[0].astype(np.int32) + 1
    done = by_the_rules(SUDOKU, given.astype(np.int32) + 1)
    rows = np.arange(4)
    assert done(rows, true, np.full(4, -9.0)).all()
    assert not done(rows, given.astype(np.int32) + 1, np.full(4, 9.0)).any()  # blanks left
    other = true[:, np.r_[4:8, 0:4, 8:16]]  # keeps the rules, changes clues
    assert sudoku.valid(to_grids(other)).all() and not done(rows, other, np.zeros(4)).any()
    assert done(np.array([2]), true[[2]], np.zeros(1)).tolist() == [True]
    assert done(np.array([2]), true[[1]], np.zeros(1)).tolist() == [False]  # another puzzle's answer


def test_an_unknown_way_to_halt_is_refused():
    with pytest.raises(UsageError, match="rules, model, never, got 'q'"):
        solve(Scripted(None), SUDOKU, puzzles(1), 3, halt="q")  # type: ignore[arg-type]


def mazes(count):
    """Mazes of side 5 that have several shortest paths each."""
    found = np.concatenate([next(maze.drawn(5, 4, np.random.default_rng(0), (0.1, 0.2))) for _ in range(2)])
    labels, moves = maze.solve(found)
    grids = found.reshape(-1, 5, 5)
    other = maze.solve(dihedral.transformed(grids, 6).reshape(-1, 25))[0].reshape(-1, 5, 5)
    several = (dihedral.transformed(other, 6).reshape(-1, 25) != labels).any(axis=1)
    return found[several][:count], labels[several][:count]


class Walker:
    """Finds a shortest path through mazes, but marks nothing in those tries that `fails(time, row)` names."""

    def __init__(self, fails):
        self.fails, self.asked = fails, []

    def __call__(self, tokens, steps, done, told=int):
        self.asked.append(tokens)
        answers = maze.solve(tokens.astype(np.uint8))[0].astype(np.int32)
        for row, own in enumerate(tokens):
            if self.fails(len(self.asked), row):
                answers[row] = own
        assert done(np.arange(len(tokens)), answers, np.zeros(len(tokens), bool)).tolist() == [
            not self.fails(len(self.asked), row) for row in range(len(tokens))
        ]
        return Solved(answers, np.zeros(len(tokens), np.float32), np.full(len(tokens), 2))


def test_a_maze_is_tried_in_every_position_and_any_shortest_path_is_an_answer():
    given, labels = mazes(4)
    solver = Walker(lambda time, row: time < 7 and row < 2)
    found = solve(solver, MAZE, given, 3, votes=8)  # type: ignore[arg-type]
    assert found.valid.all() and found.tries.tolist() == [7, 7, 1, 1] and found.steps.tolist() == [14, 14, 2, 2]
    assert maze.shortest(given, found.grids).all()
    np.testing.assert_array_equal(found.grids[2:], labels[2:])
    assert (found.grids[:2] != labels[:2]).any(axis=1).all()  # symmetry 6 found another one
    for index, asked in enumerate(solver.asked):
        there = dihedral.transformed(given[: len(asked)].reshape(-1, 5, 5), index)
        np.testing.assert_array_equal(asked, there.reshape(-1, 25))
    failed = solve(Walker(lambda time, row: True), MAZE, given, 3, votes=8)  # type: ignore[arg-type]
    assert not failed.lawful.any() and failed.faithful.all() and failed.tries.tolist() == [8] * 4
    np.testing.assert_array_equal(failed.grids, given)
    with pytest.raises(UsageError, match="a maze has 8 symmetries; needed: as many votes at most, got 9"):
        solve(solver, MAZE, given, 3, votes=9)  # type: ignore[arg-type]
