"""The objective of recursive models: its losses against float64, and which rows halt, reset and stay."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from losses.act import ACT, CARRY, DATA, METRICS, binary_cross_entropy, log_softmax, log_stablemax
from runtime.errors import UsageError
from runtime.op import Context

STEPS = 4


class Counter(nn.Module):
    """y counts the supervision steps and z adds up the first token; halting logits come from the puzzle's own."""

    def __init__(self):
        super().__init__()
        self.weight = mx.array(1.0)

    def start(self, count):
        return mx.zeros((count, 1, 1)), mx.full((count, 1, 1), 100.0)

    def __call__(self, x, y, z, rows=None):
        y, z = y + 1, z + x[:, :1, None]
        logits = self.weight * (mx.arange(5) == x[..., None]).astype(mx.float32)
        halt = x[:, 0].astype(mx.float32) - 2.5  # tokens 3 and 4 halt at once
        return y, z, logits, mx.stack([halt, mx.zeros_like(halt)], axis=1) * self.weight


def context(mode="train", seed=0):
    return Context(mode, mx.random.key(seed), mx.array(0), mx.array(0))


def batch_of(first, label=None):
    x = mx.array([[value, 1, 2] for value in first], mx.int32)
    return {"x": x, "label": x if label is None else mx.array(label, mx.int32),
            "puzzle": mx.arange(len(first), dtype=mx.int32)}  # fmt: skip


def float64_stablemax(x):
    s = np.where(x >= 0, x + 1, 1 / (1 - np.minimum(x, 0)))
    return np.log(s / s.sum(-1, keepdims=True))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 50.0, 1e4, 1e8])
def test_stablemax_equals_float64(scale):
    x = scale * np.random.default_rng(0).normal(size=(64, 11)).astype(np.float32)
    np.testing.assert_allclose(
        log_stablemax(mx.array(x)), float64_stablemax(x.astype(np.float64)), rtol=2e-6, atol=2e-6
    )


def test_gradients_of_stablemax_equal_float64_differences():
    x = np.random.default_rng(0).normal(size=(2, 5))
    x[0, 1] = 0.0  # where the two branches meet, the slope is one and not none

    gradient = mx.grad(lambda a: log_stablemax(a)[..., 1].sum())(mx.array(x.astype(np.float32)))
    h, numeric = 1e-5, np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[place] = h
        difference = float64_stablemax(x + step) - float64_stablemax(x - step)
        numeric[place] = difference[..., 1].sum() / (2 * h)
    np.testing.assert_allclose(gradient, numeric, atol=2e-5)


def test_softmax_is_the_usual_one():
    x = mx.array(np.random.default_rng(0).normal(size=(4, 11)).astype(np.float32))
    np.testing.assert_allclose(log_softmax(x), mx.log(mx.softmax(x, axis=-1)), atol=1e-6)


def test_binary_cross_entropy_is_finite_for_any_logits():
    logits, target = mx.array([-1e5, -1.0, 0.0, 2.0, 1e5]), mx.array([1.0, 0.0, 1.0, 1.0, 1.0])
    wide = np.array(logits, np.float64)
    expected = np.logaddexp(0, wide) - wide * np.array(target, np.float64)
    np.testing.assert_allclose(binary_cross_entropy(logits, target), expected, rtol=1e-6)
    slopes = mx.grad(lambda a: binary_cross_entropy(a, target).sum())(logits)
    np.testing.assert_allclose(slopes, 1 / (1 + np.exp(np.clip(-wide, -700, 700))) - np.array(target), atol=1e-6)


def test_halted_rows_take_new_data_and_the_others_keep_theirs():
    objective, model = ACT(STEPS, exploration=0.0), Counter()
    first = batch_of([1, 3, 0])
    data = first | objective.initial_carry(model, first)
    _, out = objective(model, data, context())
    assert out["carry_halted"].tolist() == [False, True, False]  # token 3 says that it is done
    second = batch_of([4, 2, 4])
    _, out = objective(model, second | {name: out[name] for name in CARRY}, context())
    assert out["carry_x"][:, 0].tolist() == [1, 2, 0]
    assert out["carry_puzzle"].tolist() == [0, 1, 2]
    assert out["carry_steps"].tolist() == [2, 1, 2]
    assert out["carry_y"].flatten().tolist() == [2, 1, 2]
    assert out["carry_z"].flatten().tolist() == [102, 102, 100]  # the second one from the start again
    for _ in range(STEPS - 2):
        assert out["carry_halted"].tolist() == [False, False, False]
        _, out = objective(model, second | {name: out[name] for name in CARRY}, context())
    assert out["carry_halted"].tolist() == [True, False, True]  # at the last step all halt
    assert float(out["steps"]) == STEPS


def test_a_model_stops_in_a_rollout_where_it_halts_in_training():
    class Undecided(Counter):
        """Its second halting logit is 1: tokens 3 and 4 say to halt, 3 alone says more loudly to go on."""

        def __call__(self, x, y, z, rows=None):
            y, z, logits, q = super().__call__(x, y, z, rows)
            return y, z, logits, mx.stack([q[:, 0], mx.ones(len(x))], axis=1)

    first, model = batch_of([2, 3, 4]), Undecided()
    for q_continue, stops in ((False, [False, True, True]), (True, [False, False, True])):
        objective = ACT(STEPS, exploration=0.0, q_continue=q_continue)
        _, out = objective(model, first | objective.initial_carry(model, first), context())
        _, q, found = next(objective.rollout(model, first))
        assert out["carry_halted"].tolist() == found.tolist() == stops
        assert q.tolist() == [-0.5, 0.5, 1.5]


def test_labels_are_those_of_the_puzzle_a_row_works_on():
    objective, model = ACT(STEPS, exploration=0.0), Counter()
    first = batch_of([1])
    _, out = objective(model, first | objective.initial_carry(model, first), context())
    right = out["token_loss"].item()
    _, out = objective(model, batch_of([4], [[0, 0, 0]]) | {name: out[name] for name in CARRY}, context())
    assert out["token_loss"].item() == pytest.approx(right)


def test_explorers_go_on_for_two_steps_or_more():
    objective, model = ACT(STEPS, exploration=1.0), Counter()
    first = batch_of([4] * 3000)
    data, halts = first | objective.initial_carry(model, first), []
    for seed in range(STEPS):
        _, out = objective(model, data, context(seed=seed))
        halts.append(float(out["carry_halted"].mean()))
        data = first | {name: out[name] for name in CARRY}
    assert halts[0] == 0
    # those that halt at step 2 drew 2; of the others, a third of a new draw's numbers are 2, two thirds at most 3, ...
    assert halts[1] == pytest.approx(1 / 3, abs=0.04)
    assert objective.least(mx.random.key(0), 5000).min().item() == 2
    assert objective.least(mx.random.key(0), 5000).max().item() == STEPS
    share = ACT(STEPS, exploration=0.25).least(mx.random.key(1), 20_000) > 0
    assert share.mean().item() == pytest.approx(0.25, abs=0.02)


def test_evaluation_takes_all_steps_from_the_start_and_its_means_are_over_all_rows():
    objective, model = ACT(STEPS, exploration=1.0), Counter()
    batch = batch_of([4, 1], [[4, 1, 2], [1, 1, 0]])
    loss, out = objective(model, batch, context("eval"))
    assert out["exact_accuracy"].tolist() == [1, 0]
    np.testing.assert_allclose(out["accuracy"], [1, 2 / 3], rtol=1e-6)
    assert out["steps"].tolist() == [STEPS] * 2
    assert out["q_halt_accuracy"].tolist() == [1, 1]
    found = list(objective.rollout(model, batch))
    assert len(found) == STEPS
    assert found[-1][0].tolist() == batch["x"].tolist() and found[-1][1].tolist() == [1.5, -1.5]
    masked, _ = objective(model, batch | {"mask": mx.array([1.0, 0.0])}, context("eval"))
    alone, _ = objective(model, {name: rows[:1] for name, rows in batch.items()}, context("eval"))
    assert masked.item() == pytest.approx(alone.item()) != loss.item()


def test_metrics_are_over_rows_that_halt_and_nan_where_none_does():
    objective, model = ACT(STEPS, exploration=0.0), Counter()
    batch = batch_of([3, 1], [[3, 1, 0], [0, 0, 0]])
    _, out = objective(model, batch | objective.initial_carry(model, batch), context())
    assert out["accuracy"].item() == pytest.approx(2 / 3) and out["exact_accuracy"].item() == 0
    batch = batch_of([1, 1])
    _, out = objective(model, batch | objective.initial_carry(model, batch), context())
    assert all(np.isnan(out[name].item()) for name in METRICS[:4])


def test_ignored_tokens_count_neither_for_the_loss_nor_against_the_answer():
    objective = ACT(STEPS)
    logits = mx.random.normal((2, 3, 5), key=mx.random.key(0))
    q, label = mx.zeros((2, 2)), mx.array([[1, -100, 2], [-100, -100, -100]])
    loss, rows = objective.losses(logits, q, label)
    expected = float64_stablemax(np.array(logits, np.float64))
    assert rows["token_loss"][0].item() == pytest.approx(-(expected[0, 0, 1] + expected[0, 2, 2]) / 2, rel=1e-5)
    assert rows["token_loss"][1].item() == 0 and bool(mx.isfinite(loss).all())
    other = mx.where(mx.arange(3)[:, None] == 1, 99.0, logits)
    assert objective.losses(other, q, label)[0].tolist() == loss.tolist()


def test_q_continue_is_trained_on_what_the_next_step_says():
    class Rising(Counter):
        def __call__(self, x, y, z, rows=None):
            y, z, logits, _ = super().__call__(x, y, z)
            return y, z, logits, self.weight * mx.concatenate([y[:, 0] - 3, 2 * y[:, 0] - 3], axis=1)

    objective, model, batch = ACT(2, exploration=0.0, q_continue=True), Rising(), batch_of([0])
    carry = objective.initial_carry(model, batch)
    losses = []
    for _ in range(2):
        loss, out = objective(model, batch | carry, context())
        losses.append(loss.item() - out["token_loss"].item() - 0.5 * out["q_halt_loss"].item())
        carry = {name: out[name] for name in CARRY}

    def cross_entropy(logit, target):
        return np.logaddexp(0, logit) - logit / (1 + np.exp(-target))

    assert losses[0] == pytest.approx(0.5 * cross_entropy(-1, max(-1, 1)), rel=1e-5)
    assert losses[1] == pytest.approx(0.5 * cross_entropy(1, 0), rel=1e-5)  # the last step can't go on: q_halt alone


def test_the_target_of_q_continue_has_no_gradient():
    objective, model, batch = ACT(STEPS, exploration=0.0, q_continue=True), Counter(), batch_of([1])
    data = batch | objective.initial_carry(model, batch)

    def loss(weight):
        model.weight = weight
        return objective(model, data, context())[0]

    def plain(weight):
        model.weight = weight
        y, z = model.start(1)
        _, _, logits, q = model(batch["x"], y, z)
        target = mx.sigmoid(mx.array([0.0]))  # max(q_halt, q_continue) of the next step, for weight 1
        return (objective.losses(logits, q, batch["label"])[0] + 0.5 * binary_cross_entropy(q[:, 1], target)).mean()

    one = mx.array(1.0)
    assert mx.grad(loss)(one).item() == pytest.approx(mx.grad(plain)(one).item(), rel=1e-5)


@pytest.mark.parametrize("options, word", [({"steps": 0}, "steps"), ({"exploration": 2.0}, "exploration")])
def test_options_out_of_range(options, word):
    with pytest.raises(UsageError, match=word):
        ACT(**options)


def test_a_model_without_latent_states_is_refused():
    with pytest.raises(UsageError, match="model=trm"):
        ACT().check(nn.Linear(2, 2))
    ACT().check(Counter())
    assert set(DATA) == {"x", "label", "puzzle"}
