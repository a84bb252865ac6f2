"""The evaluator of ARC-AGI: a test pair is solved if one of a few answers, voted on over augmentations, is right."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from domains import arc
from evaluation.evaluator import Evaluator, counted
from evaluation.puzzles import batches, progress, rolled
from runtime.errors import UsageError
from runtime.run import Run

TASKS = "test_puzzles.json"  # the evaluation tasks beside the data, {name: {"train": [...], "test": [...]}}
CHUNK = 16_384  # rows whose identifiers are read together


class Ballot:
    """Votes on the answers to test pairs, each pair known by its task and its input as the task itself shows it."""

    def __init__(self):
        self.votes: dict[tuple[str, bytes], dict[bytes, list[float]]] = {}

    def add(self, name: str, x: np.ndarray, answer: np.ndarray, q: float) -> None:
        """A vote by tokens x and answer (900,) of the augmentation of that name, with the halting logit q."""
        place = arc.original(name), arc.key(arc.inverse(name, arc.grid(x)))
        given = arc.key(arc.inverse(name, arc.grid(answer)))
        self.votes.setdefault(place, {}).setdefault(given, []).append(float(0.5 + 0.5 * np.tanh(np.float64(q) / 2)))

    def best(self, task: str, x: np.ndarray, count: int) -> list[bytes]:
        """The `count` answers to the grid x with most votes, of equals the one with the higher mean of sigmoid(q)."""
        votes = self.votes.get((task, arc.key(x)), {})
        return sorted(votes, key=lambda given: (len(votes[given]), np.mean(votes[given])), reverse=True)[:count]


def passed(ballot: Ballot, tasks: Mapping[str, Any], count: int) -> float:
    """The mean over tasks of the share of their test pairs that one of the `count` best answers solves."""
    shares = []
    for name, task in tasks.items():
        pairs = [(arc.grid_of(pair["input"]), arc.grid_of(pair["output"])) for pair in task["test"]]
        shares.append(np.mean([arc.key(y) in ballot.best(name, x, count) for x, y in pairs]))
    return float(np.mean(shares))


class ARCPass(Evaluator):
    """pass@k on the evaluation tasks of dataloaders=arc: "pass<k>_<tasks>_<n>step".

    Every augmentation of a test pair gives one answer, after `steps` supervision steps, which is turned back. The k
    answers with most votes count, of equals the one with the higher mean of sigmoid(q_halt), as in TRM's
    evaluators/arc.py. A task counts by the share of its test pairs solved; a pair without an answer is not solved.

    passes: the k. votes: augmentations of a task asked for, the task itself among them (None: all). steps: None for the
    training's. batch: puzzles at once.
    """

    def __init__(
        self,
        passes: list | tuple = (1, 2),
        votes: int | None = None,
        steps: int | None = None,
        batch: int = 256,
        quiet: bool = False,
    ):
        given = {"votes": votes, "steps": steps, "batch": batch} | {f"passes[{i}]": k for i, k in enumerate(passes)}
        for name, value in given.items():
            if value is not None and value < 1:
                raise UsageError(f"ARCPass: {name} must be at least 1, got {value}.")
        self.passes, self.votes, self.steps, self.batch, self.quiet = tuple(passes), votes, steps, batch, quiet

    def check(self, pipeline) -> None:
        """Raises UsageError for data without ARC's sheets, the names of augmentations or the evaluation tasks."""
        source = pipeline.sources.get("eval")
        if getattr(source, "shape", None) != (arc.LENGTH,) or not getattr(source, "names", []):
            raise UsageError("evaluation=arc judges models of dataloaders=arc; needed: sheets of 900 tokens with "
                             "named identifiers.")  # fmt: skip
        tasks_beside(source)

    def __call__(self, run: Run) -> dict[str, float]:
        """Every metric; UsageError where the run's objective has no supervision steps."""
        objective: Any = run.objective
        if not hasattr(objective, "rollout"):
            raise UsageError(f"evaluation=arc needs a run of loss=act; this one's is {type(objective).__name__}.")
        source, ballot, steps = run.pipeline.sources["eval"], Ballot(), self.steps or objective.steps
        names, tasks, rows = source.names, tasks_beside(source), self.rows(source)
        with progress(len(rows), self.quiet) as bar:
            for batch, real in batches(source, rows, self.batch):
                *_, (answers, q, _) = rolled(run, batch, steps)
                for row in range(real):
                    ballot.add(names[batch["puzzle"][row]], batch["x"][row], answers[row], q[row])
                bar.update(real)
        return {f"{counted(f'pass{k}', len(tasks))}_{steps}step": passed(ballot, tasks, k) for k in self.passes}

    def rows(self, source: Any) -> np.ndarray:
        """The rows (n,) of a data set that are asked for."""
        everything = np.arange(len(source))
        if self.votes is None:
            return everything
        kept = first_of(source.names, self.votes)
        own = [source.identifier(everything[start : start + CHUNK]) for start in range(0, len(source), CHUNK)]
        return everything[np.isin(np.concatenate(own), kept)]


def first_of(names: Sequence[str], count: int) -> list[int]:
    """The identifiers of the first `count` augmentations of every task."""
    seen: dict[str, int] = {}
    kept = []
    for identifier, name in enumerate(names):
        task = arc.original(name)
        seen[task] = seen.get(task, 0) + 1
        if seen[task] <= count:
            kept.append(identifier)
    return kept


def tasks_beside(source: Any) -> dict[str, Any]:
    """The evaluation tasks beside a data set's files; UsageError where there are none."""
    file = Path(source.folder) / TASKS
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"can't read the evaluation tasks in {file}: {error}") from error
    if not found:
        raise UsageError(f"there is no evaluation task in {file}.")
    return found
