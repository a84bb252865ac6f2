import json
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import runtime.blas  # noqa: F401
from dataloaders.puzzle_files import Split, write
from dataloaders.puzzles import Puzzles
from domains import arc
from evaluation.arc import ARCPass, Ballot, first_of, passed
from runtime.errors import UsageError

X, OTHER = np.array([[1, 2], [3, 0]], np.uint8), np.array([[5, 5, 5]], np.uint8)
A, B, C = (np.array(rows, np.uint8) for rows in ([[1]], [[2, 0]], [[3], [4]]))
NAMES = ["t", "t|||t1|||0234567891", "t|||t7|||0987654321", "t|||t4|||0123456789"]


def vote(ballot, name, x, answer, q):
    ballot.add(name, *(arc.tokens(arc.augmented(name, grid)) for grid in (x, answer)), q)


def ranked(ballot, x=X, count=9):
    known = {arc.key(grid): letter for letter, grid in zip("ABC", (A, B, C), strict=True)}
    return "".join(known.get(given, "?") for given in ballot.best("t", x, count))


def test_the_answer_with_most_votes_comes_first_then_the_surer():
    ballot = Ballot()
    for name, answer, q in ((NAMES[0], A, -4), (NAMES[1], A, -4), (NAMES[2], B, 1.0), (NAMES[3], C, 2.0)):
        vote(ballot, name, X, answer, q)
    assert ranked(ballot) == "ACB" and ranked(ballot, count=2) == "AC"
    assert ranked(ballot, OTHER) == ""


def test_of_equal_votes_the_mean_of_the_chances_decides():
    ballot = Ballot()
    for answer, logits in (
        (A, (10.0, -10.0)),
        (B, (0.5, 0.5)),
        (C, (30.0, -20.0)),
    ):  # means .5, .62, .5; of logits 0, .5, 5
        for name, q in zip(NAMES, logits, strict=False):
            vote(ballot, name, X, answer, q)
    assert ranked(ballot)[0] == "B"


def test_every_test_pair_has_votes_of_its_own_and_nonsense_is_a_vote_too():
    ballot = Ballot()
    vote(ballot, NAMES[1], OTHER, B, 0.0)
    ballot.add("t", arc.tokens(X), np.zeros(900, np.uint8), 5.0)
    ballot.add("u", arc.tokens(X), arc.tokens(C), 5.0)
    assert ranked(ballot, OTHER) == "B" and ranked(ballot) == "?"


def pair(x, y):
    return {"input": x.tolist(), "output": y.tolist()}


def test_a_task_counts_by_the_share_of_its_test_pairs():
    ballot = Ballot()
    tasks = {"t": {"test": [pair(X, A), pair(OTHER, B)]}, "u": {"test": [pair(X, C)]}}
    assert passed(ballot, tasks, 2) == 0
    for name, answer in ((NAMES[0], B), (NAMES[1], B), (NAMES[2], A), (NAMES[3], C)):
        vote(ballot, name, X, answer, 1.0 if answer is A else 0.0)
    assert passed(ballot, tasks, 1) == 0 and passed(ballot, tasks, 2) == 0.25
    vote(ballot, "t", OTHER, B, 0.0)
    vote(ballot, "u", X, C, 0.0)
    assert passed(ballot, tasks, 2) == 1 and passed(ballot, tasks, 1) == 0.75


def test_the_first_augmentations_of_every_task():
    names = ["<blank>", "a", "a|||t1|||0123456789", "b", "a|||t2|||0123456789", "b|||t1|||0123456789"]
    assert first_of(names, 2) == [0, 1, 2, 3, 5]


@pytest.fixture
def data(tmp_path):
    """One task with one test pair under four augmentations, its identifiers not in order."""
    names = ["<blank>", *NAMES[::-1]]
    own = np.array([2, 4, 1, 3])
    sheets = [[arc.tokens(arc.augmented(names[row], grid)) for row in own] for grid in (X, A)]
    split = Split(
        *map(np.stack, sheets), puzzle_identifiers=own, puzzle_indices=np.arange(5), group_indices=np.array([0, 4])
    )
    write(tmp_path, {"train": split, "test": split}, arc.VOCABULARY, names)
    (tmp_path / "test_puzzles.json").write_text(json.dumps({"t": {"train": [], "test": [pair(X, A)]}}))
    return tmp_path


class Oracle:
    """Knows the answers to some augmentations; says C, as the augmentation shows it, to the others."""

    steps = 3

    def __init__(self, names, known):
        self.names, self.known = names, known
        self.asked = []

    def rollout(self, model, batch, steps):
        puzzles = np.array(batch["puzzle"]).tolist()
        self.asked += puzzles
        names = [self.names[puzzle] for puzzle in puzzles]
        found = [arc.tokens(arc.augmented(name, A if name in self.known else C)) for name in names]
        for step in range(steps):
            answers = np.stack(found) if step == steps - 1 else np.zeros((len(names), 900))
            q = mx.array([3.0 if name == "t" else 0.0 for name in names])
            yield mx.array(answers.astype(np.int32)), q, q > 0


def run_of(data, known) -> Any:
    source = Puzzles(str(data), "test")
    pipeline = SimpleNamespace(sources={"eval": source})
    return SimpleNamespace(pipeline=pipeline, model=None, objective=Oracle(source.names, known))


def test_an_evaluation_votes_over_all_augmentations(data):
    run = run_of(data, {NAMES[0]})
    judge = ARCPass(batch=3, quiet=True)
    judge.check(run.pipeline)
    assert judge(run) == {"pass1_1_3step": 0, "pass2_1_3step": 1}
    assert judge(run_of(data, {NAMES[1], NAMES[2]})) == {"pass1_1_3step": 0, "pass2_1_3step": 1}  # the surer C
    assert judge(run_of(data, {NAMES[0], NAMES[2]})) == {"pass1_1_3step": 1, "pass2_1_3step": 1}
    assert judge(run_of(data, set())) == {"pass1_1_3step": 0, "pass2_1_3step": 0}
    assert sorted(set(run.objective.asked)) == [1, 2, 3, 4]


def test_votes_bounds_the_augmentations_and_steps_the_depth(data):
    run = run_of(data, {NAMES[3]})
    assert ARCPass((1,), votes=1, steps=2, quiet=True)(run) == {"pass1_1_2step": 1}
    assert set(run.objective.asked) == {1}


def test_what_can_not_be_judged_is_refused(data):
    run, refused = run_of(data, set()), run_of(data, set())
    refused.objective = 3
    with pytest.raises(UsageError, match="dataloaders=arc"):
        ARCPass().check(SimpleNamespace(sources={"eval": np.zeros((3, 4))}))
    with pytest.raises(UsageError, match="loss=act; this one's is int"):
        ARCPass()(refused)
    with pytest.raises(UsageError, match=r"passes\[1\] must be at least 1, got 0"):
        ARCPass((1, 0))
    (data / "test_puzzles.json").write_text("{}")
    with pytest.raises(UsageError, match="no evaluation task"):
        ARCPass().check(run.pipeline)
    (data / "test_puzzles.json").unlink()
    with pytest.raises(UsageError, match="can't read the evaluation tasks"):
        ARCPass().check(run.pipeline)
