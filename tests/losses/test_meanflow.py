"""MeanFlow against the closed form: for data N(m, s^2) the flow map is affine and u is known, and so is one jump."""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from losses.average_velocity import Rows
from losses.meanflow import MeanFlow
from losses.pairs import SeparatePairs, SortedPairs
from losses.paths import LogitNormal
from runtime.errors import UsageError
from solvers.average import Average
from solvers.euler import Euler
from solvers.rk4 import RK4
from tests.losses.closed_form import CASES, CTX, exact, exact_rows, train


@pytest.mark.parametrize(("mean", "std"), CASES)
def test_exact_field_has_no_residual(mean, std):
    with mx.stream(mx.cpu):
        rows, model = exact_rows(mean, std), exact(mean, std)
        z, v, r, t = rows.z, rows.v, rows.r, rows.t
        u, target, _ = MeanFlow().regression(model, rows)
        gap = (t - r)[:, None]
        wrong = {
            "minus": v - (target - v),
            "end-time tangent": v + gap * _slope(model, z, v, r, t, 0.0, 1.0),
            "both times move": v + gap * _slope(model, z, v, r, t, 1.0, 1.0),
        }
        assert u.dtype == mx.float64 and mx.abs(u - target).max().item() < 1e-9
        for name, value in wrong.items():
            assert np.median(np.abs(np.array(u - value))) > 0.05, name


def _slope(model, z, v, r, t, dr, dt):
    def at(z, r, t):
        return model(z, times=mx.stack([r, t], axis=1))

    return mx.jvp(at, [z, r, t], [v, mx.full(r.shape, dr, r.dtype), mx.full(t.shape, dt, t.dtype)])[1][0]


@pytest.mark.parametrize(("mean", "std"), CASES)
@pytest.mark.parametrize("steps", [1, 3])
def test_jumps_along_the_exact_field_give_the_data(mean, std, steps):
    noise = mx.array(np.random.default_rng(1).normal(size=(100_000, 1)).astype(np.float32))
    solver = Average(steps)
    out = np.array(MeanFlow().sample(exact(mean, std), noise, solver))
    assert solver.evaluations == steps
    np.testing.assert_allclose(out, mean + std * np.array(noise), atol=2e-4)  # the flow map
    assert abs(out.mean() - mean) < 0.01 and abs(out.std() - std) < 0.01
    # jumping the other way, from data's clock, does not
    back = np.array(noise - exact(mean, std)(noise, mx.broadcast_to(mx.array([[0.0, 1.0]]), (100_000, 2))))
    assert abs(back.mean() - mean) > 0.5


@pytest.mark.parametrize(("mean", "std"), CASES)
def test_velocity_is_the_instantaneous_field(mean, std):
    noise = mx.array(np.random.default_rng(1).normal(size=(1000, 1)).astype(np.float32))
    out = MeanFlow().sample(exact(mean, std), noise, RK4(50))
    np.testing.assert_allclose(np.array(out), mean + std * np.array(noise), atol=1e-3)


def small(seed=0):
    mx.random.seed(seed)
    net = nn.Sequential(nn.Linear(4, 32), nn.SiLU(), nn.Linear(32, 2))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def __call__(self, x, times=None, key=None, label=None):
            shift = 0 if label is None else 0.1 * label[:, None]
            return self.net(mx.concatenate([x, times.astype(x.dtype)], axis=1)) + shift

    return Net()


def batch(count=64, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.normal(3, 0.5, (2, count, 2)).astype(np.float32)
    return {"x": mx.array(points[0]), "x0": mx.array(points[1] - 3), "label": mx.array(np.arange(count) % 3)}


def by_hand(objective, model, data, moving, seed=0):
    """Loss with the slope by central differences in float64, all else written out."""
    keys = mx.random.split(mx.random.key(seed), 4)
    times = np.array(objective.pairs(len(data["x"]), moving, keys[1]), np.float64)
    r, t = times[:, :1], times[:, 1:]
    x, e = np.array(data["x"], np.float64), np.array(data["x0"], np.float64)
    z, v = (1 - r) * e + r * x, x - e
    weights = [np.array(w, np.float64) for w in (model.net.layers[0].weight, model.net.layers[0].bias,
                                                 model.net.layers[2].weight, model.net.layers[2].bias)]  # fmt: skip

    def u(z, r):
        h = np.concatenate([z, r, t], 1) @ weights[0].T + weights[1]
        return h / (1 + np.exp(-h)) @ weights[2].T + weights[3]

    h = 1e-5
    slope = (u(z + h * v, r + h) - u(z - h * v, r - h)) / (2 * h)
    squares = ((u(z, r) - v - (t - r) * slope) ** 2).sum(1)
    return (squares / (squares + objective.eps) ** objective.power).mean(), (
        (u(z, r) - (t - r) * slope - v) ** 2
    ).mean()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_loss_equals_one_by_hand_with_finite_differences(share, power):
    objective, model, data = MeanFlow(jvp_share=share, power=power), small(), batch()
    loss, extra = objective(model, data, CTX)
    wanted, raw = by_hand(objective, model, data, round(64 * share))
    assert abs(loss.item() / wanted - 1) < 1e-4
    assert abs(extra["velocity_mse"].mean().item() / raw - 1) < 1e-4


def test_no_gradient_flows_through_target_and_weight():
    """The gradient equals that of the same loss with the target and the weight as constants."""
    objective, model, data = MeanFlow(jvp_share=1.0), small(), batch()
    keys = mx.random.split(CTX.key, 4)
    times = objective.pairs(64, 64, keys[1])
    r, t = times[:, :1], times[:, 1:]
    z, v = (1 - r) * data["x0"] + r * data["x"], data["x"] - data["x0"]
    target = mx.stop_gradient(objective.regression(model, Rows(z, v, r[:, 0], t[:, 0], {}, 64))[1])
    weight = 1 / (mx.square(model(z, times) - target).sum(1) + objective.eps)
    mx.eval(target, weight)

    def frozen(model):
        return (mx.square(model(z, times) - target).sum(1) * weight).mean()

    got = nn.value_and_grad(model, lambda m: objective(m, data, CTX)[0])(model)[1]
    wanted = nn.value_and_grad(model, frozen)(model)[1]
    for a, b in zip(*(nn.utils.tree_flatten(g) for g in (got, wanted)), strict=True):
        np.testing.assert_allclose(np.array(a[1]), np.array(b[1]), rtol=1e-4, atol=1e-6)


def test_only_the_rows_that_move_are_differentiated():
    seen = []

    def model(z, times=None, key=None):
        seen.append(z.shape[0])
        return z * times[:, :1]

    MeanFlow(jvp_share=0.25)(model, batch(64), CTX)
    assert sorted(seen) == [16, 48]


def test_guidance_in_training():
    """omega, kappa: the mixture of the two fields where the time is inside, plain v outside and for dropped labels."""

    def model(z, times=None, key=None, label=None):
        return mx.where(label[:, None] < 0, -1.0, label[:, None].astype(mx.float32)) * mx.ones_like(z)

    objective = MeanFlow(conditions=["label"], omega=2.0, kappa=0.5, guided_from=0.3, guided_to=0.7)
    z, v = mx.zeros((4, 2)), mx.full((4, 2), 10.0)
    given = {"label": mx.array([1, 2, -1, 1])}
    r = mx.array([0.5, 0.6, 0.5, 0.1])
    out = objective.guided_velocity(model, Rows(z, v, r, r, given, 0))
    # 2 * 10 + .5 * label - 1.5 * (-1)
    assert out[:, 0].tolist() == [22.0, 22.5, 10.0, 10.0]


@pytest.mark.parametrize("pairs", [SortedPairs(), SortedPairs(LogitNormal(0.4)), SeparatePairs()])
def test_pairs_are_ordered_and_only_the_moving_rows_move(pairs):
    times = np.array(pairs(20_000, 15_000, mx.random.key(3)))
    assert (times[:, 0] <= times[:, 1]).all() and times.min() >= 0 and times.max() <= 1
    assert (times[15_000:, 0] == times[15_000:, 1]).all()
    share = (times[:15_000, 0] < times[:15_000, 1]).mean()
    assert abs(share - (0.936 if isinstance(pairs, SeparatePairs) else 1.0)) < 0.01  # P(N(3.4, 2 * 1.6^2) > 0) = .9335


def test_rows_that_stand_still_keep_the_start_times_distribution():
    times = np.array(SortedPairs()(40_000, 0, mx.random.key(4)))
    assert abs(times[:, 0].mean() - 1 / 3) < 0.01  # the smaller of two uniform numbers
    v1 = np.array(SeparatePairs()(40_000, 0, mx.random.key(5)))[:, 0]
    assert abs(np.log(v1 / (1 - v1)).mean() - 0.6) < 0.05


def test_label_dropout_is_independent_of_the_rows_that_move():
    seen = []

    def model(z, times=None, key=None, label=None):
        seen.append(np.array(label))
        return z

    MeanFlow(conditions=["label"], label_dropout=0.5, jvp_share=0.5)(model, batch(2000), replace(CTX))
    shares = [(labels < 0).mean() for labels in seen]
    assert all(abs(share - 0.5) < 0.06 for share in shares) and len(shares) == 2


def test_solver_average_needs_an_average_velocity():
    from losses.flow_matching import FlowMatching

    with pytest.raises(UsageError, match="FlowMatching trains no average velocity"):
        FlowMatching().sample(small(), mx.zeros((2, 2)), Average())
    assert not Euler.average


@pytest.mark.parametrize("wrong", [{"jvp_share": 1.5}, {"eps": 0.0}, {"omega": 2.0}, {"label_dropout": 0.1}])
def test_wrong_arguments(wrong):
    with pytest.raises(UsageError, match=str(next(iter(wrong.values())))):
        MeanFlow(**wrong)


@pytest.mark.parametrize(("mean", "std"), CASES)
def test_a_trained_network_reaches_the_data_in_one_step(mean, std):
    got = train(MeanFlow(jvp_share=0.75, power=0.0), mean, std)
    assert abs(got[0] / mean - 1) < 0.05 and abs(got[1] / std - 1) < 0.10, got


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_gradients_pass_compiled_activations_after_a_jvp(share):
    """An nn.silu that ran inside a jvp can't be differentiated when it runs again: the order of the rows matters."""
    model, data = small(), batch()
    _, gradient = nn.value_and_grad(model, lambda m: MeanFlow(jvp_share=share)(m, data, CTX)[0])(model)
    assert all(mx.isfinite(leaf).all().item() for _, leaf in nn.utils.tree_flatten(gradient))
