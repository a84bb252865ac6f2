"""ARC: what its network reads, what it decides, and that its memory survives a checkpoint."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest

from optimizers.arc import ARC, WEIGHTS
from optimizers.arc_network import CHANNELS, CYCLES, FAR, POINTS, Controller, Cycle, features
from runtime.errors import UsageError
from runtime.trees import flatten
from training import checkpoint

RNG = np.random.default_rng(0)
LINE = np.arange(POINTS) / POINTS


def cycles(count=CYCLES, evals=3):
    rng = np.random.default_rng(1)
    return [
        Cycle(rng.normal(size=POINTS).tolist(), rng.normal(size=evals).tolist(), 0.1 * 2.0**k) for k in range(count)
    ]


def of_cycle(values, channel):
    return values.reshape(CYCLES, POINTS, CHANNELS)[:, :, channel]


def told(arc, losses, evals=(), rate=0.1):
    """The factor after a cycle of these losses."""
    for step, loss in enumerate(losses):
        arc.train_loss(float(loss), step / len(losses))
    for loss in evals:
        arc.eval_loss(float(loss))
    return arc.multiplier(rate)


def test_features_are_what_their_docstring_says():
    given = cycles()
    values = features(given)
    train = np.array([cycle.train for cycle in given])
    evals = np.array([np.repeat(cycle.evals, [11, 11, 10]) for cycle in given])
    expected = {
        0: (train - train.mean()) / train.std(),
        1: (train - train[-1].mean()) / train[-1].std(),
        2: (evals - train.mean()) / train.std(),
        3: (evals - evals.mean()) / evals.std(),
        4: np.ones_like(train),
        5: np.repeat([[-2], [-1], [0]], POINTS, 1) * math.log(2) / math.log(1.618),
        6: np.ones_like(train),
    }
    for channel, own in expected.items():
        np.testing.assert_allclose(of_cycle(values, channel), own, rtol=1e-5, atol=1e-6, err_msg=str(channel))


def test_features_know_no_scale_and_no_zero_of_losses_and_rates():
    moved = [Cycle([3e4 * x - 7e3 for x in c.train], [3e4 * x - 7e3 for x in c.evals], 50 * c.rate) for c in cycles()]
    np.testing.assert_allclose(features(moved), features(cycles()), rtol=1e-4, atol=1e-5)


def test_what_is_not_there_is_zero_or_interpolated():
    values = features(cycles(1, evals=0))
    assert not values[: 2 * POINTS].any() and of_cycle(values, 6)[-1].all()
    assert not of_cycle(values, 2).any() and not of_cycle(values, 3).any() and not of_cycle(values, 4).any()
    broken = [float("nan") if place % 5 == 2 else x for place, x in enumerate(LINE)]
    expected = features([Cycle(LINE.tolist(), [1.0], 0.1)])
    np.testing.assert_allclose(features([Cycle(broken, [math.inf, 1.0], 0.1)]), expected, atol=1e-6)
    nothing = features([Cycle([math.nan] * POINTS, [math.nan], 0.0)] * 4)
    assert np.isfinite(nothing).all()
    flat = features([Cycle([5.0] * POINTS, [5.0, 1e9], 0.1)])
    assert np.abs(flat).max() <= FAR


@pytest.mark.parametrize("steps", [5, POINTS, 48, 100])
def test_a_cycle_is_kept_as_means_of_equal_parts(steps):
    losses, arc = RNG.normal(size=steps), ARC()
    told(arc, losses)
    place = np.arange(steps) * POINTS // steps
    expected = [losses[place == part].mean() if (place == part).any() else math.nan for part in range(POINTS)]
    np.testing.assert_allclose(arc.cycles[0].train, expected, rtol=1e-12)


def test_three_cycles_are_remembered_with_their_rates():
    arc = ARC()
    for number in range(5):
        told(arc, [number] * 4, [number], 0.1 + number)
    assert [cycle.rate for cycle in arc.cycles] == [2.1, 3.1, 4.1]
    assert [cycle.evals for cycle in arc.cycles] == [[2.0], [3.0], [4.0]]


@pytest.mark.parametrize("evaluated", [True, False])
def test_a_slow_even_fall_raises_the_rate_and_a_climb_lowers_it(evaluated):
    slow, climbing = ARC(), ARC()
    for cycle in range(3):
        line = 1 - 0.1 * (cycle + np.arange(40) / 40) + 0.001 * RNG.normal(size=40)
        raised = told(slow, line, line[[19, 39]] if evaluated else ())
        line = 1 + 0.1 * (cycle + np.arange(40) / 40) + 0.1 * RNG.normal(size=40)
        lowered = told(climbing, line, line[[19, 39]] if evaluated else ())
    assert (raised, lowered) == (1.618, 0.618)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_lowers_the_rate(broken):
    falling = 1 - 0.1 * LINE
    arc = ARC()
    assert told(arc, [*falling[:7], broken, *falling[8:]], [0.9]) == 0.618
    assert told(arc, [broken] * POINTS, [broken]) == 0.618
    assert told(arc, falling, [0.9, broken]) == 0.618
    assert told(arc, falling, [0.9]) in (1.618, 1.0, 0.618)  # goes on with what was finite
    assert not arc.broken


def test_its_memory_goes_through_a_checkpoint_anywhere():
    losses, evals = 2 + RNG.normal(size=(4, 40)), 2 + RNG.normal(size=(4, 2))
    whole, arc, factors = ARC(), ARC(), []
    for cycle in range(4):
        expected = told(whole, losses[cycle], evals[cycle], 0.1)
        for step, loss in enumerate(losses[cycle]):
            arc.train_loss(loss, step / 40)
            if step in (0, 13):
                after = ARC()
                after.load_state_dict(json.loads(json.dumps(arc.state_dict())))
                arc = after
        for loss in evals[cycle]:
            arc.eval_loss(loss)
        after = ARC()
        after.load_state_dict(json.loads(json.dumps(arc.state_dict())))
        arc = after
        factors.append((arc.multiplier(0.1), expected))
    assert all(own == expected for own, expected in factors) and arc.cycles == whole.cycles


def test_the_weights_that_ship_are_small_whole_and_the_networks():
    arrays, meta = checkpoint.load(WEIGHTS)
    assert WEIGHTS.stat().st_size < 200_000 and meta["kind"] == "arc"
    shapes = {name: array.shape for name, array in flatten(Controller().parameters()).items()}
    assert {name: array.shape for name, array in arrays.items()} == shapes
    assert all(mx.isfinite(array).all().item() for array in arrays.values())


def test_a_frequency_must_be_a_whole_number_of_epochs():
    assert ARC().frequency == 3 and ARC(4).frequency == 4
    with pytest.raises(UsageError, match="ARC needs a frequency that is an integer above 0, got 0"):
        ARC(0)
