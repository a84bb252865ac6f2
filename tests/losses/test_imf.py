"""Improved MeanFlow: closed form, own tangent, v head, guidance as a condition. Parity: test_parity.py."""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from losses.average_velocity import Rows
from losses.imf import IMF
from losses.pairs import SortedPairs
from models.imf_dit import IMFDiT
from models.mlp import MLP
from runtime.errors import UsageError
from solvers.average import Average
from tests.losses.closed_form import CASES, CTX, exact, exact_rows, train

LED = {"conditions": ["label"], "guidance_max": 8.0}


@pytest.mark.parametrize(("mean", "std"), CASES)
def test_exact_field_has_no_residual(mean, std):
    with mx.stream(mx.cpu):
        rows = exact_rows(mean, std)
        objective, model = IMF(jvp_share=1.0), exact(mean, std)
        u, _, gap, v_g = objective.regression(model, rows)
        assert mx.abs(u - gap - v_g).max().item() < 1e-9
        assert np.median(np.abs(np.array(u + gap - v_g))) > 0.05  # the other sign
        # the tangent is the model's own velocity: v itself does not reach the slope
        _, _, same, _ = objective.regression(model, replace(rows, v=rows.v + 5))
        assert mx.abs(same - gap).max().item() == 0


@pytest.mark.parametrize(("mean", "std"), CASES)
def test_a_trained_network_reaches_the_data_in_one_step(mean, std):
    got = train(IMF(SortedPairs(), jvp_share=0.75, power=0.0), mean, std)
    assert abs(got[0] / mean - 1) < 0.05 and abs(got[1] / std - 1) < 0.10, got


class Linear(nn.Module):
    """u and v as known functions of everything that the model is told."""

    def __init__(self):
        super().__init__()
        self.scale = mx.array(1.0)

    def __call__(self, x, times=None, key=None, label=None, guidance=None, interval=None, velocity_head=False):
        named = mx.where(label < 0, 0, label + 1).astype(x.dtype) * guidance
        u = self.scale * (x * times[:, 1:] + named[:, None] + interval[:, :1])
        return (u, 2 * self.scale * named[:, None] + 0 * x) if velocity_head else u


def test_guidance_acts_inside_the_interval_and_not_on_dropped_labels():
    r = mx.array([0.5, 0.9, 0.5])
    given = {"label": mx.array([1, 1, -1]), "guidance": mx.array([4.0, 4.0, 4.0]),
             "interval": mx.broadcast_to(mx.array([0.4, 0.6]), (3, 2))}  # fmt: skip
    rows = Rows(mx.zeros((3, 2)), mx.full((3, 2), 10.0), r, mx.ones(3), given, 3)
    v_g, own = IMF(velocity_head=True, **LED).velocities(Linear(), rows)
    # the head gives 2 (label + 1) w, and 0 for no class
    assert own[:, 0].tolist() == [16.0, 4.0, 0.0]
    assert v_g[:, 0].tolist() == [10 + 0.75 * 16, 10.0, 10.0]


def test_drawn_guidance_and_intervals():
    w, interval = (np.array(a) for a in IMF(**LED).draw(40_000, 20_000, mx.random.key(1)))
    assert w.min() >= 1 and w.max() <= 8 and abs(np.log(w).mean() / np.log(8) - 0.5) < 0.01
    moving, still = interval[:20_000], interval[20_000:]
    assert (still == [0, 1]).all() and (moving[:, 0] <= 0.5).all() and (moving[:, 1] >= 0.5).all()
    assert abs(moving.mean(axis=0) - [0.25, 0.75]).max() < 0.01 and abs(np.corrcoef(moving.T)[0, 1]) < 0.03


def test_the_v_head_is_trained_and_u_sees_no_gradient_of_the_tangent():
    mx.random.seed(0)
    model = IMFDiT((4, 4, 1), hidden=16, depth=2, heads=2, head_depth=1, classes=3)
    batch = {"x": mx.random.normal((8, 4, 4, 1)), "label": mx.arange(8) % 3}
    for head in (True, False):
        objective = IMF(velocity_head=head, **LED)
        loss, gradients = nn.value_and_grad(model, lambda m, own=objective: own(m, batch, CTX)[0])(model)
        touched = [mx.abs(leaf).max().item() > 0 for _, leaf in nn.utils.tree_flatten(gradients["v_head"])]
        assert np.isfinite(loss.item()) and any(touched) == head


def test_samples_are_guided_in_one_pass():
    objective = IMF(guidance=3.0, guided_from=0.25, **LED)
    solver = Average(1)
    out = objective.sample(Linear(), mx.zeros((2, 2)), solver, label=mx.array([0, -1]))
    assert solver.evaluations == 1 and out[:, 0].tolist() == [3.25, 0.25]
    # without guidance among the model's conditions: two passes, led away from "no class"
    plain = IMF(guidance=3.0, conditions=["label"], label_dropout=0.1)
    mx.random.seed(0)
    model, noise, label = MLP((2,), 8, 2, classes=3), mx.zeros((2, 2)), mx.array([0, 1])
    times = mx.broadcast_to(mx.array([0.0, 1.0]), (2, 2))
    some, none = model(noise, times, label=label), model(noise, times)
    wanted = none + 3 * (some - none)
    np.testing.assert_allclose(np.array(plain.sample(model, noise, solver, label=label)), np.array(wanted), rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"guidance_max": 0.5}, {"guidance_max": 8.0}, {"guided_from": 1.5}, {"eps": 0.0}, {"guidance": 0.5, **LED}],
)
def test_wrong_arguments(wrong):
    with pytest.raises(UsageError, match=str(next(iter(wrong.values())))):
        IMF(**wrong)


@pytest.mark.parametrize("options", [{"velocity_head": True}, LED])
def test_a_model_that_can_not_be_told(options):
    with pytest.raises(UsageError, match="model=imf_dit does.*got MLP"):
        IMF(**options).check(MLP((2,), classes=3))
    IMF(**options).check(IMFDiT((4, 4, 1), hidden=16, depth=1, heads=2, head_depth=1, classes=3))
