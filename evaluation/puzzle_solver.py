"""Solves puzzles with a trained recursive model: rows that are done leave the batch, and others take their places."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from domains.puzzles import halts

Done = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(puzzles' numbers (n,), their tokens (n, S), whether the model stops there (n,)) -> which are done (n,)."""


@dataclass
class Solved:
    """Tokens (N, S) of the last answers, their first halting logits q (N,) and the supervision steps they took (N,)."""

    tokens: np.ndarray
    q: np.ndarray
    steps: np.ndarray


def never(rows: np.ndarray, tokens: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Every puzzle takes all its steps."""
    return np.zeros(len(rows), bool)


def halting(rows: np.ndarray, tokens: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """A puzzle is done once the model says so."""
    return stops


class PuzzleSolver:
    """Runs a recursive model (see models/recursive.py) on any number of puzzles, `batch` at once.

    Where the model has embeddings of puzzles, that of identifier 0 is taken, the references' for puzzles of one kind.
    A puzzle's answer does not depend on the others, nor on `batch`, but for rounding. One step is compiled, for `batch`
    rows; towards the end, where fewer puzzles are left, for halves of it. q_continue: as the model was trained
    (losses/act.py), for when it stops.
    """

    def __init__(self, model: Any, batch: int, q_continue: bool = False):
        self.model, self.batch, self.q_continue = model, batch, q_continue
        table = getattr(model, "table", None)
        self.embedding = None if table is None else table[mx.array([0])]
        self._step = mx.compile(self._stepped, inputs=[model.state])

    def _stepped(self, x: mx.array, y: mx.array, z: mx.array, new: mx.array) -> tuple[mx.array, ...]:
        starts = self.model.start(len(x))
        y, z = (mx.where(new[:, None, None], start, state) for start, state in zip(starts, (y, z), strict=True))
        rows = None if self.embedding is None else mx.repeat(self.embedding, len(x), axis=0)
        y, z, logits, q = self.model(x, y, z, rows)
        return y, z, logits.argmax(axis=-1), q[:, 0], halts(q, self.q_continue)

    def __call__(self, puzzles: np.ndarray, steps: int, done: Done = never, told: Callable[[int], Any] = int) -> Solved:
        """Answers to puzzles (N, S) int32 after `steps` supervision steps, or once they are `done`.

        told: gets the number of puzzles that have been finished, each time some are.
        """
        count = len(puzzles)
        found = Solved(np.zeros_like(puzzles), np.zeros(count, np.float32), np.zeros(count, np.int64))
        size = min(self.batch, count)
        own: np.ndarray = np.full(size, -1)  # whose place it is; -1: nobody's
        y, z = self.model.start(size)
        following = 0
        while following < count or (own >= 0).any():
            free = np.flatnonzero(own < 0)[: count - following]
            own[free] = np.arange(following, following + len(free))
            following += len(free)
            new: Any = np.isin(np.arange(size), free)
            while size > 1 and (own >= 0).sum() <= size // 2:
                size = -(-size // 2)
                places = np.argsort(own < 0, kind="stable")[:size]
                own, new, y, z = own[places], new[places], y[mx.array(places)], z[mx.array(places)]
            y, z, tokens, q, stops = self._step(mx.array(puzzles[own]), y, z, mx.array(new))
            mx.eval(y, z, tokens, q, stops)
            live = own >= 0
            rows = own[live]
            found.tokens[rows], found.q[rows] = np.array(tokens)[live], np.array(q)[live]
            found.steps[rows] += 1
            ends = done(rows, found.tokens[rows], np.array(stops)[live]) | (found.steps[rows] >= steps)
            own[np.flatnonzero(live)[ends]] = -1
            if ends.any():
                told(int(ends.sum()))
        return found

    def path(self, puzzles: np.ndarray, steps: int) -> np.ndarray:
        """The answers (T, N, S) to puzzles (N, S) int32 after each of `steps` supervision steps, all at once."""
        y, z = self.model.start(len(puzzles))
        x, none_new, answers = mx.array(puzzles), mx.zeros(len(puzzles), mx.bool_), []
        for _ in range(steps):
            y, z, tokens, *_ = self._step(x, y, z, none_new)
            answers.append(np.array(tokens).astype(puzzles.dtype))
        return np.stack(answers)
