"""Sudokus solved by a trained model: answers checked by the rules, unsolved ones tried again under other symmetries."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from domains import sudoku
from evaluation.puzzle_solver import Done, PuzzleSolver, halting, never
from evaluation.puzzle_votes import moved, sudoku_symmetry, voted
from runtime.errors import UsageError

Halt = Literal["rules", "model", "never"]
HALTS = ("rules", "model", "never")


@dataclass
class SudokuAnswers:
    """Answers to N Sudokus: grids (N, S) uint8 with 0 where there is no digit, whether each follows the rules and
    whether it keeps the clues (N,), the supervision steps (N,) and the tries (N,) it took."""

    grids: np.ndarray
    lawful: np.ndarray
    faithful: np.ndarray
    steps: np.ndarray
    tries: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        """Which answers (N,) solve their puzzles."""
        return self.lawful & self.faithful


def to_grids(tokens: np.ndarray) -> np.ndarray:
    """Tokens (N, S), 0 for padding, 1 for a blank, digit + 1, as grids (N, S) uint8 with 0 for no digit."""
    return (np.maximum(tokens, 1) - 1).astype(np.uint8)


def keeps(puzzles: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Which answers (N, S) have the clues of their puzzles (N, S), 0 where there is none."""
    return ((puzzles == 0) | (puzzles == answers)).all(axis=1)


def by_the_rules(tokens: np.ndarray) -> Done:
    """Done once an answer to puzzles (N, S), tokens, keeps rules and clues: with one solution, it is that."""
    puzzles = to_grids(tokens)

    def done(rows: np.ndarray, found: np.ndarray, stops: np.ndarray) -> np.ndarray:
        answers = to_grids(found)
        return keeps(puzzles[rows], answers) & sudoku.valid(answers)

    return done


def solve_sudokus(
    solver: PuzzleSolver,
    puzzles: np.ndarray,
    steps: int,
    votes: int = 1,
    halt: Halt = "rules",
    seed: int = 0,
    told: Callable[[int], object] = int,
) -> SudokuAnswers:
    """Answers to puzzles (N, S) uint8, 0 blank, each after at most `steps` supervision steps.

    What has no valid answer is tried again under a random symmetry, `votes` times in all. The first valid answer
    counts; where there is none, the most frequent one does. halt: a try ends by the rules, by the model's halting logit
    or never before its last step. told: gets the number of tries that have ended, each time some do.
    """
    if halt not in HALTS:
        raise UsageError(f"halt must be one of {', '.join(HALTS)}, got {halt!r}.")
    rng = np.random.default_rng(seed)
    tokens, count = puzzles.astype(np.int32) + 1, len(puzzles)
    found = SudokuAnswers(np.zeros_like(puzzles), *np.zeros((2, count), bool), *np.zeros((2, count), np.int64))
    left = np.arange(count)
    ballots = np.zeros((votes, *puzzles.shape), puzzles.dtype)
    trust = np.zeros((votes, count), np.float32)
    for number in range(votes):
        if not len(left):
            break
        asked = tokens[left]
        if number:
            places, names = sudoku_symmetry(len(asked), asked.shape[1], rng)
            asked = moved(asked, places, names)
        done = {"rules": by_the_rules(asked), "model": halting, "never": never}[halt]
        solved = solver(asked, steps, done, told)
        back = solved.tokens
        if number:
            back = moved(back, np.argsort(places, axis=1), np.argsort(names, axis=1))
        ballots[number, left], trust[number, left] = to_grids(back), solved.q
        found.steps[left] += solved.steps
        found.tries[left] += 1
        right = sudoku.valid(ballots[number, left]) & keeps(puzzles[left], ballots[number, left])
        found.grids[left[right]] = ballots[number, left[right]]
        left = left[~right]
    found.grids[left] = voted(ballots[:, left], trust[:, left])
    found.lawful, found.faithful = sudoku.valid(found.grids), keeps(puzzles, found.grids)
    return found
