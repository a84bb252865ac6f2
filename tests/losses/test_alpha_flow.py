"""alpha-Flow: closed form, its two limits, the curriculum."""

import math
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from losses.alpha_flow import AlphaFlow
from losses.average_velocity import Rows
from losses.meanflow import MeanFlow
from losses.pairs import SortedPairs
from models.mlp import MLP
from runtime.errors import UsageError
from tests.losses.closed_form import CASES, CTX, exact, exact_rows, train


def curved(z, times=None, key=None, label=None):
    """A field that is no average velocity of anything."""
    return mx.sin(2 * z + times[:, :1]) * times[:, 1:] + mx.square(times[:, :1])


@pytest.mark.parametrize(("mean", "std"), CASES)
def test_exact_field_has_a_residual_of_order_alpha_squared_and_none_at_the_end(mean, std):
    with mx.stream(mx.cpu):
        rows, model, objective = exact_rows(mean, std), exact(mean, std), AlphaFlow()
        u, target, _ = objective.regression(model, rows)
        assert mx.abs(u - target).max().item() < 1e-9
        sizes = []
        for alpha in (0.02, 0.01):
            u, target, _ = objective.stepped(model, rows, mx.array(alpha, dtype=mx.float64))
            sizes.append(mx.abs(u - target).mean().item())
        assert sizes[1] < 1e-3 and 3.8 < sizes[0] / sizes[1] < 4.2
        back, target, _ = objective.stepped(model, replace(rows, v=-rows.v), mx.array(0.01, dtype=mx.float64))
        assert mx.abs(back - target).mean().item() > 10 * sizes[1]  # a step the other way


def test_small_alphas_give_meanflows_target_and_alpha_1_flow_matching():
    with mx.stream(mx.cpu):
        rows = exact_rows(3.0, 0.5)
        u, wanted, _ = MeanFlow(jvp_share=1.0).regression(curved, rows)
        errors = []
        for alpha in (1e-3, 1e-4):
            _, target, _ = AlphaFlow().stepped(curved, rows, mx.array(alpha, dtype=mx.float64))
            errors.append(mx.abs((target - u) / alpha - (wanted - u)).max().item())
        assert errors[1] < 1e-2 and 8 < errors[0] / errors[1] < 12
        _, target, _ = AlphaFlow().stepped(curved, rows, None)
        _, near, _ = AlphaFlow().stepped(curved, rows, mx.array(1.0, dtype=mx.float64))
        assert mx.array_equal(target, rows.v) and mx.abs(near - target).max().item() < 1e-12


def test_loss_by_hand_in_the_middle_of_the_curriculum():
    objective, ctx = AlphaFlow(begin=0, end=100, clamp=2.0), replace(CTX, phase="between", step=mx.array(60))
    rng = np.random.default_rng(0)
    z, v = rng.normal(size=(2, 4, 3))
    r, t = np.array([0.1, 0.3, 0.5, 0.7]), np.array([0.9, 0.6, 0.5, 0.7])
    rows = Rows(*(mx.array(a.astype(np.float32)) for a in (z, v, r, t)), {}, 2)
    losses, off = objective.errors(curved, rows, ctx)

    def u(z, r, t):
        return np.sin(2 * z + r) * t + r**2

    alpha = 1 - 1 / (1 + math.exp(-25 * 0.1))
    r, t = r[:, None], t[:, None]
    d = alpha * (t - r)[:2]
    target = (d * v[:2] + (t - r)[:2] * (1 - alpha) * u(z[:2] + d * v[:2], r[:2] + d, t[:2])) / (t - r)[:2]
    target = np.concatenate([target.clip(-2, 2), v[2:]])
    squares = ((u(z, r, t) - target) ** 2).mean(1)
    np.testing.assert_allclose(np.array(losses), np.array([alpha, alpha, 1, 1]) * squares / (squares + 1e-3), rtol=1e-4)
    np.testing.assert_allclose(np.array(off), u(z, r, t) - target, atol=1e-5)


def test_the_curriculum_and_its_phases():
    objective = AlphaFlow(begin=100, end=300)
    names = [objective.phase(step) for step in range(400)]
    alphas = np.array(objective.alpha(mx.arange(400)))
    assert names[0] == names[100] == "flow" and names[200] == "between" and names[300] == names[399] == "meanflow"
    changes = [step for step in range(1, 400) if names[step] != names[step - 1]]
    assert len(changes) == 2 and alphas[200] == 0.5
    assert alphas[changes[0] - 1] > 0.995 >= alphas[changes[0]]
    assert alphas[changes[1] - 1] >= 0.005 > alphas[changes[1]]


def test_only_the_end_of_the_curriculum_takes_a_jvp(monkeypatch):
    mx.random.seed(0)
    model, batch, taken, jvp = MLP((1,), 8, 2), {"x": mx.ones((8, 1))}, [], mx.jvp
    monkeypatch.setattr(mx, "jvp", lambda *args: taken.append(1) or jvp(*args))
    for phase, count in (("flow", 0), ("between", 0), ("meanflow", 1)):
        ctx = replace(CTX, phase=phase, step=mx.array(5000))
        loss, gradients = nn.value_and_grad(model, lambda m, ctx=ctx: AlphaFlow()(m, batch, ctx)[0])(model)
        assert np.isfinite(loss.item()) and len(taken) == count, phase
        assert all(mx.abs(leaf).max().item() > 0 for _, leaf in nn.utils.tree_flatten(gradients))


@pytest.mark.parametrize(("mean", "std"), CASES)
def test_a_trained_network_reaches_the_data_in_one_step(mean, std):
    objective = AlphaFlow(SortedPairs(), moving_share=0.75, end=600, eps=100.0)  # so that rows weigh alike
    got = train(objective, mean, std, phase=objective.phase)
    assert abs(got[0] / mean - 1) < 0.05 and abs(got[1] / std - 1) < 0.10, got


@pytest.mark.parametrize("wrong", [{"end": 0}, {"least": 0.7}, {"clamp": 0.0}, {"sharpness": -1.0}, {"omega": 2.0}])
def test_wrong_arguments(wrong):
    with pytest.raises(UsageError, match=f"AlphaFlow.*{next(iter(wrong.values()))}"):
        AlphaFlow(**wrong)
