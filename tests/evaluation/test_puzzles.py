"""Accuracies of answers that are known beforehand, votes whose winner is known, and a real model's own rollout."""

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from domains import dihedral, maze, sudoku
from evaluation.puzzle_votes import moved, sudoku_symmetry, voted
from evaluation.puzzles import Answers, PuzzleAccuracy, batches, summary
from losses.act import ACT
from models.trm import TRM
from runtime.errors import UsageError
from runtime.op import Objective
from runtime.run import Run

SOLUTION = np.array([1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1], np.uint8)
S = len(SOLUTION)


class Rows(list):
    """Held-out puzzles of side 4: row i is a symmetry of SOLUTION with its first i % 5 cells blank."""

    def __init__(self, count, sets=None):
        rng = np.random.default_rng(0)
        pairs = [sudoku.shuffled(np.where(np.arange(S) < row % 5, 0, SOLUTION).astype(np.uint8), SOLUTION, rng)
                 for row in range(count)]  # fmt: skip
        super().__init__({"x": x.astype(np.int32) + 1, "label": y.astype(np.int32) + 1, "puzzle": np.int32(0)}
                         for x, y in pairs)  # fmt: skip
        self.sets = None if sets is None else np.array(sets)

    def take(self, indices, rng):
        return {name: np.stack([self[row][name] for row in indices]) for name in self[0]}


class Scripted(Objective):
    """Answers by a function of the batch and the step, notes the batches `seen`; stops where q exceeds a bound."""

    def __init__(self, answer, steps=3, bound=0.0):
        self.answer, self.steps, self.bound, self.seen = answer, steps, bound, []

    def rollout(self, model, batch, steps):
        x = np.array(batch["x"])
        self.seen.append(x)
        for step in range(1, steps + 1):
            found, q = self.answer(x, np.array(batch["label"]), step)
            logits = mx.array(np.broadcast_to(q, len(x)).astype(np.float32))
            yield mx.array(found.astype(np.int32)), logits, logits > self.bound


def run_of(objective, rows, model=None):
    return Run({}, model, objective, SimpleNamespace(sources={"eval": rows}))  # type: ignore[arg-type]


def by_blanks(x, label, step):
    """Right once there have been as many steps as blanks (4 is never reached); q is positive from then on."""
    blanks = (x == 1).sum(axis=1)
    done = (blanks <= step) & (blanks < 4)
    return np.where(done[:, None], label, 2), np.where(done, 1.0, -1.0)


def test_accuracies_by_step_by_set_and_at_the_halt_are_those_counted_by_hand():
    rows = Rows(10, sets=["easy", "hard"] * 5)  # blanks 0 1 2 3 4 0 1 2 3 4; "hard" has 1 3 0 2 4
    found = PuzzleAccuracy(batch=4, quiet=True)(run_of(Scripted(by_blanks), rows))
    twos = np.mean([(row["label"] == 2).mean() for row in (rows[4], rows[9])])  # what an unsolved puzzle has right
    assert found == pytest.approx({
        "exact_accuracy_10_1step": 0.4, "exact_accuracy_10_2step": 0.6, "exact_accuracy_10_3step": 0.8,
        "exact_accuracy_easy_5_3step": 0.8, "exact_accuracy_hard_5_3step": 0.8,
        "cell_accuracy_10_3step": 0.8 + 0.2 * twos, "q_halt_accuracy_10_3step": 1.0,
        "exact_accuracy_10/halting": 0.8, "steps_10/halting": (2 * (1 + 1 + 2 + 3 + 3)) / 10, "halted_10": 0.8,
        "exact_accuracy_10/any": 0.8,
    })  # fmt: skip


def test_a_model_that_halts_too_early_is_judged_by_what_it_had_then():
    exact = np.array([[False, True], [True, False], [False, False]])
    q = np.array([[1.0, 1.0], [-1.0, 2.0], [-1.0, -1.0]])
    found = summary(Answers(exact, exact.astype(float), q, q > 0, exact[:, :1], None), [2])
    assert found["exact_accuracy_3/halting"] == 0.0 and found["exact_accuracy_3_2step"] == pytest.approx(1 / 3)
    assert found["exact_accuracy_3/any"] == pytest.approx(2 / 3)
    assert found["steps_3/halting"] == pytest.approx(5 / 3) and found["halted_3"] == pytest.approx(2 / 3)
    assert found["q_halt_accuracy_3_2step"] == pytest.approx(2 / 3)


def test_when_a_model_stops_is_its_own_rule_and_its_logit_is_judged_all_the_same():
    found = PuzzleAccuracy(quiet=True)(run_of(Scripted(by_blanks, bound=2.0), Rows(10)))  # q is 1 or -1: it never does
    assert found["halted_10"] == 0 and found["steps_10/halting"] == 3 and found["q_halt_accuracy_10_3step"] == 1


def test_of_a_maze_any_shortest_path_is_lawful():
    open_room = np.full((3, 3), maze.OPEN)
    open_room[0, 0], open_room[2, 2] = maze.START, maze.GOAL
    label = maze.solve(open_room.reshape(1, 9))[0][0]
    turned = label.reshape(3, 3).T.reshape(-1)  # as short, but not the first in the order of moves
    longer = np.where(turned == maze.OPEN, maze.PATH, turned)
    rows = Rows(0)
    rows += [{"x": open_room.reshape(-1), "label": label, "puzzle": np.int32(0)}] * 4
    given = {1: [label, turned, longer, longer], 2: [label, label, turned, longer], 3: [longer] * 4}
    judge = PuzzleAccuracy(steps=[2, 1], rules="maze", quiet=True)
    found = judge(run_of(Scripted(lambda x, _, step: (np.stack(given[step]), 1.0)), rows))
    assert (found["exact_accuracy_4_1step"], found["lawful_accuracy_4_1step"]) == (0.25, 0.5)
    assert (found["exact_accuracy_4_2step"], found["lawful_accuracy_4_2step"]) == (0.5, 0.75)
    with pytest.raises(UsageError, match="rules must be maze or null, got 'maz'"):
        PuzzleAccuracy(rules="maz")


def test_more_steps_are_test_time_compute_and_ignored_tokens_do_not_count():
    rows = Rows(10)
    for row in rows:
        row["label"][0] = -100
    found = PuzzleAccuracy(steps=[2, 5], quiet=True)(run_of(Scripted(by_blanks, steps=2), rows))
    assert found["exact_accuracy_10_2step"] == 0.6 and found["exact_accuracy_10_5step"] == 0.8
    assert found["steps_10/halting"] <= 2 and "exact_accuracy_10_6step" not in found
    wrong = Scripted(lambda x, label, step: (np.where(label == -100, 4, label), -1.0))
    judged = PuzzleAccuracy(quiet=True)(run_of(wrong, rows))
    assert judged["exact_accuracy_10_3step"] == judged["cell_accuracy_10_3step"] == 1.0


def test_every_batch_has_one_shape_and_every_row_counts_once():
    objective = Scripted(by_blanks)
    found = PuzzleAccuracy(batch=4, quiet=True)(run_of(objective, Rows(10)))
    assert [x.shape for x in objective.seen] == [(4, S)] * 3 and "exact_accuracy_10_3step" in found
    few = PuzzleAccuracy(count=3, quiet=True)(run_of(Scripted(by_blanks), Rows(9)))
    assert few["exact_accuracy_3_1step"] == pytest.approx(1 / 3)  # rows 0, 4 and 8: blanks 0, 4 and 3
    named = Rows(9, sets=["a", "b", "b", "b", "b", "b", "b", "b", "a"])
    few = PuzzleAccuracy(count=3, quiet=True)(run_of(Scripted(by_blanks), named))
    assert few["exact_accuracy_a_2_3step"] == 1.0 and few["exact_accuracy_b_1_3step"] == 0.0
    assert [real for _, real in batches(Rows(10), np.arange(10), 4)] == [4, 4, 2]


def test_a_symmetry_moves_solutions_to_solutions_and_back():
    rng = np.random.default_rng(1)
    tokens = np.tile(SOLUTION.astype(np.int32) + 1, (50, 1))
    places, names = sudoku_symmetry(1, 50, S, rng)
    there = moved(tokens, places, names)
    assert sudoku.valid((there - 1).astype(np.uint8)).all() and len(np.unique(there, axis=0)) > 20
    np.testing.assert_array_equal(moved(there, np.argsort(places, axis=1), np.argsort(names, axis=1)), tokens)


def test_votes_undo_the_symmetry_and_outvote_a_wrong_first_answer():
    def answer(x, label, step):  # right for every puzzle but the untouched ones
        solved = np.stack([true_of[row.tobytes()] if row.tobytes() in true_of else solve(row) for row in x])
        own = np.array([row.tobytes() in true_of for row in x])
        return np.where(own[:, None], 2, solved), -1.0

    def solve(row):
        return sudoku.solve((row - 1)[None].astype(np.uint8))[0][0].astype(np.int32) + 1

    rows = Rows(8)
    true_of = {row["x"].tobytes(): row["label"] for row in rows}
    objective = Scripted(answer, steps=1)
    found = PuzzleAccuracy(votes=4, symmetry="sudoku", quiet=True)(run_of(objective, rows))
    assert found["exact_accuracy_8_1step"] == 0.0 and found["exact_accuracy_8_1step/vote4"] == 1.0
    assert len(objective.seen) == 4 and len({x.tobytes() for x in objective.seen}) == 4


def test_votes_on_a_maze_are_its_eight_positions_and_the_voted_path_may_be_lawful_without_being_the_labels():
    maze_of = next(maze.drawn(5, 4, np.random.default_rng(3), (0.1, 0.2)))[:6]
    rows = Rows(0)
    rows += [{"x": x.astype(np.int32), "label": y.astype(np.int32), "puzzle": np.int32(0)}
             for x, y in zip(maze_of, maze.solve(maze_of)[0], strict=True)]  # fmt: skip

    def answer(x, label, step):  # a path in every position but the mazes' own
        own = (x == np.stack([row["x"] for row in rows])).all(axis=1)
        return np.where(own[:, None], x, maze.solve(x.astype(np.uint8))[0]), 0.0

    objective = Scripted(answer, steps=1)
    found = PuzzleAccuracy(votes=8, symmetry="maze", rules="maze", quiet=True)(run_of(objective, rows))
    turned = [dihedral.transformed(maze_of.reshape(-1, 5, 5), index).reshape(-1, 25) for index in range(8)]
    assert len(objective.seen) == 8 and all(map(np.array_equal, objective.seen, turned))
    assert found["lawful_accuracy_6_1step"] == found["exact_accuracy_6_1step"] == 0
    assert found["lawful_accuracy_6_1step/vote8"] == 1 > found["exact_accuracy_6_1step/vote8"]


def test_the_most_frequent_answer_wins_and_trust_breaks_ties():
    a, b, c = np.array([[1, 2]]), np.array([[1, 3]]), np.array([[9, 9]])

    def chosen(*votes):
        answers, trust = zip(*votes, strict=True)
        return voted(np.stack(answers), np.array(trust)[:, None])[0].tolist()

    assert chosen((c, 9.0), (a, -3.0), (b, -1.0), (a, -2.0)) == [1, 2]
    assert chosen((a, -3.0), (b, -1.0)) == [1, 3] and chosen((a, -1.0), (b, -1.0)) == [1, 2]
    assert chosen((a, 4.0), (b, 1.0), (a, -4.0), (b, 1.0)) == [1, 3]  # trust of all voters, not the largest


def test_a_real_model_is_judged_by_its_own_rollout():
    mx.random.seed(0)
    model = TRM(6, S, hidden=16, heads=2, high=1, low=1, mixer="mlp", prefix=0)
    objective, rows = ACT(steps=3), Rows(6)
    model.eval()
    batch = {name: mx.array(np.stack([row[name] for row in rows])) for name in rows[0]}
    right = np.stack([np.array(found) == np.array(batch["label"]) for found, *_ in objective.rollout(model, batch)])
    found = PuzzleAccuracy(batch=4, quiet=True)(run_of(objective, rows, model))
    assert found["cell_accuracy_6_3step"] == pytest.approx(right[2].mean()) and 0 < right[2].mean() < 1
    _, metrics = objective.judge(model, batch)
    assert found["cell_accuracy_6_3step"] == pytest.approx(np.array(metrics["accuracy"]).mean())


def test_mistakes_are_told():
    for options, said in [
        ({"votes": 2}, "votes=2 needs a symmetry, sudoku or maze"), ({"votes": 9, "symmetry": "maze"}, "got 9"),
        ({"steps": [0]}, "from 1 on, got 0"),
        ({"symmetry": "arc"}, "sudoku or maze or null, got 'arc'"), ({"batch": 0}, "batch must be at least 1, got 0"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=said):
            PuzzleAccuracy(**options)
    with pytest.raises(UsageError, match="count=9 exceeds the 4 held-out puzzles"):
        PuzzleAccuracy(count=9).check(run_of(None, Rows(4)).pipeline)
    images = Rows(2)
    for row in images:
        row["label"] = np.int32(3)
    for source in (images, [0, 1]):
        with pytest.raises(UsageError, match="models of puzzles"):
            PuzzleAccuracy().check(run_of(None, source).pipeline)
    with pytest.raises(UsageError, match="loss=act; this one's is Objective"):
        PuzzleAccuracy()(run_of(Objective(), Rows(4)))
    PuzzleAccuracy(count=4).check(run_of(None, Rows(4)).pipeline)
