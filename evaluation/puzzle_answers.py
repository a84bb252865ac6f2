"""Puzzles solved by a trained model: answers checked by the rules, unsolved ones tried again under other symmetries."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from domains import maze, sudoku
from evaluation.puzzle_solver import Done, PuzzleSolver, halting, never
from evaluation.puzzle_votes import SYMMETRIES, check_votes, moved, voted
from runtime.errors import UsageError

Halt = Literal["rules", "model", "never"]
HALTS = ("rules", "model", "never")


@dataclass
class Answers:
    """Answers to N puzzles: grids (N, S) uint8 (0 where a Sudoku has no digit), whether each follows the rules and
    whether it leaves what was given (N,), the supervision steps (N,) and the tries (N,) it took."""

    grids: np.ndarray
    lawful: np.ndarray
    faithful: np.ndarray
    steps: np.ndarray
    tries: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        """Which answers (N,) solve their puzzles."""
        return self.lawful & self.faithful


@dataclass(frozen=True)
class Game:
    """A kind of puzzle: its name among the symmetries, grids (N, S) uint8 as tokens and back, and its rules.

    lawful, faithful: (puzzles (N, S), answers (N, S)) -> which answers (N,) keep the rules, and leave what was given.
    An answer that does both is a solution.
    """

    name: str
    tokens: Callable[[np.ndarray], np.ndarray]
    grids: Callable[[np.ndarray], np.ndarray]
    lawful: Callable[[np.ndarray, np.ndarray], np.ndarray]
    faithful: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def solved(self, puzzles: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Which answers (N,) are solutions."""
        return self.faithful(puzzles, answers) & self.lawful(puzzles, answers)


def to_grids(tokens: np.ndarray) -> np.ndarray:
    """Tokens (N, S), 0 for padding, 1 for a blank, digit + 1, as grids (N, S) uint8 with 0 for no digit."""
    return (np.maximum(tokens, 1) - 1).astype(np.uint8)


def keeps(puzzles: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Which answers (N, S) have the clues of their Sudokus (N, S), 0 where there is none."""
    return ((puzzles == 0) | (puzzles == answers)).all(axis=1)


SUDOKU = Game("sudoku", lambda grids: grids.astype(np.int32) + 1, to_grids,
              lambda puzzles, answers: sudoku.valid(answers), keeps)  # fmt: skip
MAZE = Game("maze", lambda grids: grids.astype(np.int32), lambda tokens: tokens.astype(np.uint8),
            maze.shortest, maze.keeps)  # fmt: skip


def by_the_rules(game: Game, tokens: np.ndarray) -> Done:
    """Done once an answer to puzzles (N, S), tokens, is a solution."""
    puzzles = game.grids(tokens)

    def done(rows: np.ndarray, found: np.ndarray, stops: np.ndarray) -> np.ndarray:
        return game.solved(puzzles[rows], game.grids(found))

    return done


def solve(
    solver: PuzzleSolver,
    game: Game,
    puzzles: np.ndarray,
    steps: int,
    votes: int = 1,
    halt: Halt = "rules",
    seed: int = 0,
    told: Callable[[int], object] = int,
) -> Answers:
    """Answers to puzzles (N, S) uint8, each after at most `steps` supervision steps.

    What has no valid answer is tried again under another symmetry, `votes` times in all. The first valid answer
    counts; where there is none, the most frequent one does. halt: a try ends by the rules, by the model's halting logit
    or never before its last step. told: gets the number of tries that have ended, each time some do. UsageError for
    another halt, or more votes than there are symmetries.
    """
    if halt not in HALTS:
        raise UsageError(f"halt must be one of {', '.join(HALTS)}, got {halt!r}.")
    check_votes(game.name, votes)
    rng = np.random.default_rng(seed)
    tokens, count = game.tokens(puzzles), len(puzzles)
    found = Answers(np.zeros_like(puzzles), *np.zeros((2, count), bool), *np.zeros((2, count), np.int64))
    left = np.arange(count)
    ballots = np.zeros((votes, *puzzles.shape), puzzles.dtype)
    trust = np.zeros((votes, count), np.float32)
    for number in range(votes):
        if not len(left):
            break
        asked = tokens[left]
        if number:
            places, names = SYMMETRIES[game.name](number, len(asked), asked.shape[1], rng)
            asked = moved(asked, places, names)
        done = {"rules": by_the_rules(game, asked), "model": halting, "never": never}[halt]
        solved = solver(asked, steps, done, told)
        back = solved.tokens
        if number:
            back = moved(back, np.argsort(places, axis=1), np.argsort(names, axis=1))
        ballots[number, left], trust[number, left] = game.grids(back), solved.q
        found.steps[left] += solved.steps
        found.tries[left] += 1
        right = game.solved(puzzles[left], ballots[number, left])
        found.grids[left[right]] = ballots[number, left[right]]
        left = left[~right]
    found.grids[left] = voted(ballots[:, left], trust[:, left])
    found.lawful, found.faithful = game.lawful(puzzles, found.grids), game.faithful(puzzles, found.grids)
    return found
