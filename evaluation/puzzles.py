"""The evaluator of recursive puzzle models: how many held-out puzzles they solve, after how many supervision steps."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from tqdm import tqdm

from domains import maze
from domains.puzzles import IGNORED
from evaluation.evaluator import Evaluator, counted
from evaluation.puzzle_votes import SYMMETRIES, Symmetry, check_votes, moved, voted
from runtime.errors import UsageError
from runtime.op import NumpyBatch
from runtime.run import Run

RULES = {"maze": maze.shortest}  # (x (B, S), answers (B, S)) -> (B,) bool
STREAM = 3  # second word of the symmetries' random stream


@dataclass
class Answers:
    """What was found of N puzzles: after each of T supervision steps, and voted on after K of them.

    exact (N, T): whether every token is right. cells (N, T): share of right tokens. q (N, T): first halting
    logits. stops (N, T): whether the model would stop there. voted
    (N, K): whether the answer with most votes is exact. sets (N,): names of the sets they are from, or None. lawful,
    voted_lawful (N, K): whether an answer, that with most votes, keeps the rules; None where they aren't asked for.
    """

    exact: np.ndarray
    cells: np.ndarray
    q: np.ndarray
    stops: np.ndarray
    voted: np.ndarray
    sets: np.ndarray | None
    lawful: np.ndarray | None = None
    voted_lawful: np.ndarray | None = None


class PuzzleAccuracy(Evaluator):
    """The share of held-out puzzles that a model solves, by supervision steps and by set, and when it halts.

    "exact_accuracy" and "cell_accuracy" are of answers after `steps` supervision steps, "exact_accuracy" also after
    each step up to the largest of them; with the names of sets, where the data have such, "exact_accuracy_<set>".
    "q_halt_accuracy" says how often the sign of the first halting logit tells a right answer. "exact_accuracy/halting"
    and "steps/halting" are of a model that stops as in training (losses/act.py), at the first of `steps` at the latest,
    and "halted" the share that stops. "exact_accuracy/any" counts what is right after any step up to that: what a check
    of each answer by the puzzle's rules would stop at. "exact_accuracy/voteN": each puzzle also under N - 1
    symmetries, the answers moved back, the most frequent one taken. "lawful_accuracy" also counts answers that only
    differ from the label where the rules leave a choice; in mazes such a choice splits votes, since the label rule's
    path through a turned maze is another one. Names end in the number of puzzles and of steps.

    count: puzzles, evenly spread over the set (None: all). steps: () for the training's number. votes: 1 for none.
    symmetry: "sudoku" (random ones) or "maze" (its eight in turn), for votes. rules: "maze", where any shortest path is
    lawful; None: none. batch: puzzles at once.
    """

    def __init__(
        self,
        count: int | None = None,
        steps: list | tuple = (),
        votes: int = 1,
        symmetry: str | None = None,
        rules: str | None = None,
        batch: int = 256,
        seed: int = 0,
        quiet: bool = False,
    ):
        for name, value in {"count": 1 if count is None else count, "votes": votes, "batch": batch}.items():
            if value < 1:
                raise UsageError(f"PuzzleAccuracy: {name} must be at least 1, got {value}.")
        for number in steps:
            if not isinstance(number, int) or number < 1:
                raise UsageError(f"PuzzleAccuracy: steps must be whole numbers from 1 on, got {number!r}.")
        if symmetry not in (None, *SYMMETRIES):
            raise UsageError(f"PuzzleAccuracy: symmetry must be {' or '.join(SYMMETRIES)} or null, got {symmetry!r}.")
        if rules not in (None, *RULES):
            raise UsageError(f"PuzzleAccuracy: rules must be {' or '.join(RULES)} or null, got {rules!r}.")
        check_votes(symmetry, votes)
        self.count, self.steps, self.votes, self.symmetry = count, tuple(steps), votes, symmetry
        self.rules = None if rules is None else RULES[rules]
        self.batch, self.seed, self.quiet = batch, seed, quiet

    def check(self, pipeline) -> None:
        """Raises UsageError for data that are no puzzles, or fewer of them than `count`."""
        source = pipeline.sources.get("eval", ())
        if self.count is not None and self.count > len(source):
            raise UsageError(f"evaluation.count={self.count} exceeds the {len(source)} held-out puzzles.")
        first = source.take(np.arange(1), np.random.default_rng(0)) if hasattr(source, "take") else {}
        shapes = [np.shape(first[name]) for name in ("x", "label") if name in first]
        if len(shapes) != 2 or shapes[0] != shapes[1] or len(shapes[0]) != 2:
            raise UsageError("evaluation=puzzles judges models of puzzles such as dataloaders=sudoku; needed: samples "
                             "of tokens x (S,) and label (S,).")  # fmt: skip

    def __call__(self, run: Run) -> dict[str, float]:
        """Every metric; UsageError where the run's objective has no supervision steps."""
        objective: Any = run.objective
        if not hasattr(objective, "rollout"):
            raise UsageError(f"evaluation=puzzles needs a run of loss=act; this one's is {type(objective).__name__}.")
        source = run.pipeline.sources["eval"]
        rows = np.linspace(0, len(source) - 1, self.count or len(source)).round().astype(int)
        steps = self.steps or (objective.steps,)
        return summary(self.answers(run, source, rows, steps), steps, self.votes)

    def answers(self, run: Run, source: Any, rows: np.ndarray, steps: Sequence[int]) -> Answers:
        """The answers to some rows of a data set."""
        parts: list[tuple[np.ndarray, ...]] = []
        symmetry = SYMMETRIES[self.symmetry] if self.symmetry else None
        rng = np.random.default_rng([self.seed, STREAM])
        with progress(len(rows), self.quiet) as bar:
            for batch, real in batches(source, rows, self.batch):
                parts.append(tuple(part[:real] for part in self.judged(run, batch, steps, symmetry, rng)))
                bar.update(real)
        exact, cells, q, stops, votes, *lawful = (np.concatenate(column) for column in zip(*parts, strict=True))
        sets = getattr(source, "sets", None)
        return Answers(exact, cells, q, stops, votes, None if sets is None else sets[rows], *lawful)

    def judged(
        self, run: Run, batch: NumpyBatch, steps: Sequence[int], symmetry: Symmetry | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, ...]:
        """The parts of `Answers` for one batch, but for the sets."""
        label, shape = batch["label"], batch["x"].shape
        asked = label != IGNORED
        number = np.maximum(asked.sum(axis=1), 1)
        kept = np.array(sorted(steps)) - 1
        exact, cells, q, stops, own = [], [], [], [], []
        for found, logit, stop in rolled(run, batch, max(steps)):
            wrong = asked & (found != label)
            exact.append(~wrong.any(axis=1))
            cells.append((asked & ~wrong).sum(axis=1) / number)
            q.append(logit)
            stops.append(stop)
            own.append(found)
        ballots, trust = [np.stack(own)[kept]], [np.stack(q)[kept]]
        for number in range(1, self.votes):
            assert symmetry is not None
            places, tokens = symmetry(number, shape[0], shape[1], rng)
            turned = {**batch, "x": moved(batch["x"], places, tokens)}
            there = list(rolled(run, turned, max(steps)))
            back = np.argsort(places, axis=1), np.argsort(tokens, axis=1)
            ballots.append(np.stack([moved(there[step][0], *back) for step in kept]))
            trust.append(np.stack([there[step][1] for step in kept]))
        chosen = [voted(np.stack([b[k] for b in ballots]), np.stack([t[k] for t in trust])) for k in range(len(kept))]
        wins = [~(asked & (answer != label)).any(axis=1) for answer in chosen]
        parts = [exact, cells, q, stops, wins]
        if self.rules is not None:
            parts += [[self.rules(batch["x"], answer) for answer in some] for some in (ballots[0], chosen)]
        return tuple(np.stack(part, axis=1) for part in parts)


def progress(total: int, quiet: bool) -> tqdm:
    """A bar that counts puzzles; seldom drawn where nobody looks at a terminal, not at all if `quiet`."""
    return tqdm(total=total, desc="evaluation", unit="puzzle", file=sys.stderr, dynamic_ncols=True, leave=False,
                disable=quiet, mininterval=0.2 if sys.stderr.isatty() else 30.0)  # fmt: skip


def rolled(run: Run, batch: NumpyBatch, steps: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Tokens (B, S), first halting logits (B,) and whether the model would stop (B,) after each supervision step."""
    given = {name: mx.array(value) for name, value in batch.items()}
    for found, q, stops in run.objective.rollout(run.model, given, steps):  # type: ignore[attr-defined]  # ACT's
        yield np.array(found), np.array(q.astype(mx.float32)), np.array(stops)


def batches(source: Any, rows: np.ndarray, size: int) -> Iterator[tuple[NumpyBatch, int]]:
    """Batches of a data set's rows, all of one shape, and how many rows of each are real: the last is filled up."""
    size, rng = min(size, len(rows)), np.random.default_rng(0)  # held-out rows aren't drawn at random
    for start in range(0, len(rows), size):
        own = rows[start : start + size]
        yield source.take(np.resize(own, size), rng), len(own)


def summary(found: Answers, steps: Sequence[int], votes: int = 1) -> dict[str, float]:
    """The metrics of `PuzzleAccuracy` by name; the first of `steps` is the last step of a model that halts."""
    scores: dict[str, float] = {}

    def note(metric: str, values: Any, end: str = "") -> None:
        scores[f"{counted(metric, len(values))}{end}"] = float(np.mean(values))

    for step in steps:
        note("exact_accuracy", found.exact[:, step - 1], f"_{step}step")
        note("cell_accuracy", found.cells[:, step - 1], f"_{step}step")
        for name in () if found.sets is None else np.unique(found.sets):
            note(f"exact_accuracy_{name}", found.exact[found.sets == name, step - 1], f"_{step}step")
        note("q_halt_accuracy", (found.q[:, step - 1] > 0) == found.exact[:, step - 1], f"_{step}step")
    for index, step in enumerate(sorted(steps)):
        if found.lawful is not None:
            note("lawful_accuracy", found.lawful[:, index], f"_{step}step")
        if votes > 1:
            note("exact_accuracy", found.voted[:, index], f"_{step}step/vote{votes}")
        if votes > 1 and found.voted_lawful is not None:
            note("lawful_accuracy", found.voted_lawful[:, index], f"_{step}step/vote{votes}")
    stops, rows = found.stops[:, : steps[0]], np.arange(len(found.q))
    stop = np.where(stops.any(axis=1), stops.argmax(axis=1), steps[0] - 1)
    note("exact_accuracy", found.exact[rows, stop], "/halting")
    note("steps", stop + 1.0, "/halting")
    note("halted", stops.any(axis=1))
    note("exact_accuracy", found.exact[:, : steps[0]].any(axis=1), "/any")
    for step in range(1, found.exact.shape[1] + 1):
        note("exact_accuracy", found.exact[:, step - 1], f"_{step}step")
    return scores
