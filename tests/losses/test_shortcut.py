"""Shortcut models: closed form, the grid of jumps, the loss by hand, guidance."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from losses.average_velocity import Rows
from losses.pairs import DyadicPairs
from losses.shortcut import Shortcut
from runtime.errors import UsageError
from tests.losses.closed_form import CASES, CTX, exact, exact_rows, train


@pytest.mark.parametrize(("mean", "std"), CASES)
def test_exact_field_is_consistent_with_itself(mean, std):
    """Two half jumps are one jump to rounding; those of the smallest size are Euler steps, off in proportion to d."""
    model, sizes = exact(mean, std), []
    for steps in (128, 256):
        objective = Shortcut(steps=steps)
        times = np.array(objective.pairs(4608, 4608, mx.random.key(0)), np.float64)
        with mx.stream(mx.cpu):
            rows = exact_rows(mean, std, 4608, r=times[:, 0], t=times[:, 1])
            u = model(rows.z, mx.stack([rows.r, rows.t], 1))
            error = np.array(mx.abs(u - objective.two_halves(model, rows)))[:, 0]
            smallest = times[:, 1] - times[:, 0] == 1 / steps
            assert smallest.sum() == objective.pairs.smallest(4608) and error[~smallest].max() < 1e-12
            sizes.append(error[smallest].mean())
            back = replace(rows, z=rows.z - 2 * (rows.t - rows.r)[:, None] * u)  # from the other side
            assert np.median(np.array(mx.abs(u - objective.two_halves(model, back)))) > 0.01
    assert sizes[0] < 0.01 and 1.8 < sizes[0] / sizes[1] < 2.2


def test_pairs_are_whole_cells_of_every_size():
    pairs = DyadicPairs(8)
    times = np.array(pairs(1000, 401, mx.random.key(1)))
    d = times[:, 1] - times[:, 0]
    assert (d[401:] == 0).all() and set(d[:401]) == {1, 0.5, 0.25, 0.125}
    assert [(d == size).sum() for size in (0.125, 0.25, 0.5, 1)] == [101, 100, 100, 100]
    assert (d[: pairs.smallest(401)] == 0.125).all() and d[pairs.smallest(401)] == 0.25
    assert (times[:401, 0] % d[:401] == 0).all() and (times[401:, 0] * 8 % 1 == 0).all()
    assert times.min() >= 0 and times.max() <= 1 and set(times[401:, 0]) == {i / 8 for i in range(8)}
    assert (np.array(DyadicPairs(1)(4, 2, mx.random.key(0)))[:2] == [0, 1]).all()


def named(z, times=None, key=None, label=None):
    """A field that shows what it was asked."""
    scale = 1.0 if label is None else mx.where(label < 0, 0.5, 1.0 + label)[:, None]
    return (mx.sin(z) + times[:, :1] + 3 * times[:, 1:]) * scale


@pytest.mark.parametrize("omega", [1.0, 2.0])
def test_loss_by_hand(omega):
    objective = Shortcut(steps=4, clamp=2.5, omega=omega, conditions=["label"])
    rng = np.random.default_rng(0)
    z, v = rng.normal(size=(2, 5, 3))
    r, t = np.array([0.25, 0.5, 0.0, 0.25, 0.75]), np.array([0.5, 1.0, 1.0, 0.25, 0.75])
    label = np.array([1, 0, 1, 0, -1])
    rows = Rows(*(mx.array(a.astype(np.float32)) for a in (z, v, r, t)), {"label": mx.array(label)}, 3)
    losses, off = objective.errors(named, rows, CTX)

    def u(z, r, t, scale):
        return (np.sin(z) + r + 3 * t) * scale

    target = v.copy()
    for i in range(3):
        d, scale = (t[i] - r[i]) / 2, 1.0 + label[i]
        if i == 0:  # the smallest jump: velocities, guided
            scale = 0.5 + omega * (scale - 0.5)
            first = u(z[i], r[i], r[i], scale)
            second = u((z[i] + d * first).clip(-2.5, 2.5), r[i] + d, r[i] + d, scale)
        else:
            first = u(z[i], r[i], r[i] + d, scale)
            second = u((z[i] + d * first).clip(-2.5, 2.5), r[i] + d, t[i], scale)
        target[i] = ((first + second) / 2).clip(-2.5, 2.5)
    wanted = u(z, r[:, None], t[:, None], np.where(label < 0, 0.5, 1.0 + label)[:, None])
    squares = ((wanted - target) ** 2).mean(1)
    np.testing.assert_allclose(np.array(losses), squares, rtol=1e-4)
    np.testing.assert_allclose(np.square(np.array(off)), np.full(5, squares[3:].mean()), rtol=1e-4)


def test_targets_are_frozen():
    """With two rows that move and no others worth anything, the gradient is that of a fixed target."""
    rows = Rows(mx.array([[0.3], [0.7]]), mx.zeros((2, 1)), mx.array([0.0, 0.5]), mx.array([1.0, 1.0]), {}, 2)
    objective = Shortcut()

    def loss(scale):
        return objective.errors(lambda *given, **rest: scale * named(*given, **rest), rows, CTX)[0].sum()

    def model(*given, **rest):
        return 1.5 * named(*given, **rest)

    target, u = objective.two_halves(model, rows), model(rows.z, mx.stack([rows.r, rows.t], 1))
    wanted = (2 * (u - target) * u / 1.5).sum().item()
    assert mx.grad(loss)(mx.array(1.5)).item() == pytest.approx(wanted, rel=1e-5)


def test_labels_are_dropped_where_flow_matching_trains_alone():
    seen = []

    def model(z, times=None, key=None, label=None):
        seen.append((np.array(times), np.array(label)))
        return z

    batch = {"x": mx.zeros((400, 1)), "label": mx.ones(400, mx.int32)}
    Shortcut(conditions=["label"], label_dropout=0.5)(model, batch, CTX)
    times, label = seen[-1]
    assert len(label) == 400 and (label[:100] == 1).all() and abs((label[100:] < 0).mean() - 0.5) < 0.1


@pytest.mark.parametrize(("mean", "std"), CASES)
def test_a_trained_network_reaches_the_data_in_one_step(mean, std):
    got = train(Shortcut(steps=32, moving_share=0.5), mean, std)
    assert abs(got[0] / mean - 1) < 0.05 and abs(got[1] / std - 1) < 0.10, got


@pytest.mark.parametrize(
    "wrong", [{"steps": 100}, {"clamp": -1.0}, {"omega": 2.0}, {"moving_share": 1}, {"moving_share": 1.5}]
)
def test_wrong_arguments(wrong):
    with pytest.raises(UsageError, match=str(next(iter(wrong.values())))):
        Shortcut(**wrong)
