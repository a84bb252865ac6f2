"""Refilled batches against plain rollouts: what a puzzle gets must not depend on its neighbours."""

import mlx.core as mx
import numpy as np
import pytest

from evaluation.puzzle_solver import PuzzleSolver, halting, never
from losses.act import ACT
from models.trm import TRM

S, STEPS = 16, 6


@pytest.fixture(scope="module", params=[0, 3], ids=["no embedding", "embeddings"])
def model(request):
    mx.random.seed(0)
    model = TRM(6, S, hidden=16, heads=2, high=1, low=2, mixer="mlp", prefix=2, ids=request.param)
    if model.table is not None:
        model.table.state["rows"] = mx.random.normal((3, 16))
    model.q_weight = mx.random.normal(model.q_weight.shape)  # so that rows halt at different steps
    model.q_bias = mx.zeros(2)
    model.eval()
    return model


@pytest.fixture(scope="module")
def puzzles():
    return np.random.default_rng(0).integers(1, 6, (23, S)).astype(np.int32)


@pytest.fixture(scope="module")
def rolled(model, puzzles):
    """By q_continue: tokens (T, N, S), halting logits (T, N) and where the model stops (T, N) after each step."""

    def steps(q_continue):
        found = ACT(q_continue=q_continue).rollout(model, {"x": mx.array(puzzles)}, STEPS)
        return tuple(np.stack([np.array(part) for part in parts]) for parts in zip(*found, strict=True))

    return {q_continue: steps(q_continue) for q_continue in (False, True)}


@pytest.mark.parametrize("batch", [1, 5, 8, 64])
@pytest.mark.parametrize(("done", "q_continue"), [(never, False), (halting, False), (halting, True)])
def test_every_puzzle_gets_what_a_plain_rollout_gives_it(model, puzzles, rolled, batch, done, q_continue):
    told = []
    found = PuzzleSolver(model, batch, q_continue)(puzzles, STEPS, done, told.append)
    tokens, q, halts = rolled[q_continue]
    assert np.array_equal(halts, q > 0) != q_continue  # HRM's rule is another one
    stop = np.where(halts.any(axis=0), halts.argmax(axis=0), STEPS - 1) if done is halting else np.full(23, STEPS - 1)
    assert done is never or len(set(stop)) > 2  # some leave early, some stay
    rows = np.arange(23)
    np.testing.assert_array_equal(found.steps, stop + 1)
    np.testing.assert_array_equal(found.tokens, tokens[stop, rows])
    np.testing.assert_allclose(found.q, q[stop, rows], atol=1e-2)
    assert sum(told) == 23


def test_done_sees_the_puzzles_by_their_numbers(model, puzzles):
    seen = []

    def every_third(rows, tokens, q):
        seen.extend(rows)
        return rows % 3 == 0

    found = PuzzleSolver(model, 4)(puzzles, STEPS, every_third)
    np.testing.assert_array_equal(found.steps, np.where(np.arange(23) % 3 == 0, 1, STEPS))
    assert np.bincount(seen).tolist() == found.steps.tolist()


def test_places_shrink_as_puzzles_run_out(model, puzzles, monkeypatch):
    solver, sizes = PuzzleSolver(model, 8), []
    step = solver._step
    monkeypatch.setattr(solver, "_step", lambda x, *rest: sizes.append(len(x)) or step(x, *rest))
    solver(puzzles[:9], 2, lambda rows, tokens, q: rows < 5)
    assert sizes == [8, 4, 1]


def test_nothing_to_solve(model):
    assert PuzzleSolver(model, 4)(np.zeros((0, S), np.int32), STEPS).tokens.shape == (0, S)


def test_the_path_is_that_of_a_plain_rollout(model, puzzles, rolled):
    found = PuzzleSolver(model, 4)(puzzles[:3], STEPS)
    path = PuzzleSolver(model, 4).path(puzzles[:3], STEPS)
    np.testing.assert_array_equal(path, rolled[False][0][:, :3])
    np.testing.assert_array_equal(path[-1], found.tokens)
