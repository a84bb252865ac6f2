"""FastEstimator's schedules: its own values, closed forms, and the same from a compiled step."""

import math

import mlx.core as mx
import numpy as np
import pytest

from optimizers.decays import cosine_decay, linear_decay, one_cycle, step_decay
from runtime.errors import UsageError

TIMES = (1, 2, 4, 5, 9, 10, 11, 12, 25, 38, 77)
# fastestimator 1.7's cosine_decay at TIMES, float64
COSINE = [
    (
        {"cycle_length": 10, "init_lr": 0.1},
        [0.09755285028649954, 0.09045094521025018, 0.0654511952102502, 0.0500005, 0.0024481497135004707,
         1.000000000001e-06, 0.09755285028649954, 0.09045094521025018, 0.0500005, 0.009550054789749823,
         0.0206115312780025],
    ),
    (
        {"cycle_length": 7, "init_lr": 0.1, "min_lr": 0.01, "start": 5, "warmup": True},
        [0.02, 0.04, 0.08, 0.09554359905560886, 0.02694295891635699, 0.014456400944391136, 0.01, 0.09554359905560886,
         0.01, 0.014456400944391136, 0.06501344202803415],
    ),
    (
        {"cycle_length": 5, "init_lr": 0.01, "cycle_multiplier": 2, "start": 3},
        [0.01, 0.01, 0.0065454304633775495, 0.0034555695366224504, 0.00904518046337755, 0.00793913236883622,
         0.0065454304633775495, 0.0050005, 0.0065454304633775495, 0.009984588209998774, 1e-6],
    ),
    (
        {"cycle_length": 4, "init_lr": 1.0, "cycle_multiplier": 3, "start": 4, "warmup": True},
        [0.25, 0.5, 0.8535535370398831, 0.5000005, 0.9330127688795173, 0.8535535370398831, 0.75000025,
         0.6294098931417378, 0.9330127688795173, 0.4564226722040422, 0.9010616953159255],
    ),
]  # fmt: skip
# torch 2.13's OneCycleLR(max_lr=0.1, total_steps=20, pct_start=0.3), the rates of steps 0 to 19
ONE_CYCLE = [
    0.004, 0.0131671843, 0.0371671843, 0.0668328157, 0.0908328157, 0.1, 0.0987464006, 0.0950484632, 0.0890916178,
    0.0811745654, 0.0716943002, 0.0611262022, 0.0500002, 0.0388741978, 0.0283060998, 0.0188258346, 0.0109087822,
    0.0049519368, 0.00125399938, 4e-07,
]  # fmt: skip
ALL = [
    *((cosine_decay, options) for options, _ in COSINE),
    (linear_decay, {"cycle_length": 9, "init_lr": 0.2, "min_lr": 0.02, "start": 3, "warmup": True}),
    (step_decay, {"step_size": 6, "init_lr": 0.3, "factor": 0.5, "min_lr": 0.01, "start": 2}),
    (one_cycle, {"total_steps": 20, "max_lr": 0.1}),
]


@pytest.mark.parametrize(("options", "expected"), COSINE)
def test_cosine_decay_is_fastestimators(options, expected):
    np.testing.assert_allclose([cosine_decay(t, **options) for t in TIMES], expected, rtol=1e-9)


def test_one_cycle_is_pytorchs():
    got = [one_cycle(t, 20, 0.1) for t in range(1, 22)]
    np.testing.assert_allclose(got, [*ONE_CYCLE, ONE_CYCLE[-1]], rtol=1e-8)


def test_lines_and_steps():
    line = [linear_decay(t, 4, 1.0, 0.2, start=3, warmup=True) for t in range(1, 9)]
    np.testing.assert_allclose(line, [1 / 3, 2 / 3, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2])
    steps = [step_decay(t, 3, 1.0, 0.1, min_lr=0.05) for t in range(1, 9)]
    np.testing.assert_allclose(steps, [1, 1, 1, 0.1, 0.1, 0.1, 0.05, 0.05])


@pytest.mark.parametrize(("schedule", "options"), ALL)
def test_a_traced_step_gives_the_same_rate(schedule, options):
    compiled = mx.compile(lambda step: schedule(step, **options))
    times = range(1, 90)
    expected = [schedule(t, **options) for t in times]
    assert isinstance(expected[0], float)
    got = [compiled(mx.array(t)) for t in times]
    assert got[0].dtype == mx.float32 and got[0].shape == ()
    np.testing.assert_allclose([g.item() for g in got], expected, rtol=1e-5, atol=2e-7 * max(expected))
    np.testing.assert_allclose(np.array(schedule(mx.array(list(times)), **options)), expected, rtol=1e-5, atol=2e-7)


def test_long_runs_keep_their_cycle():
    late = 10_000_003
    expected = 0.5 * (1 + math.cos(math.pi * ((late - 1) % 1000 + 1) / 1000))
    assert cosine_decay(mx.array(late), 1000, 1.0, min_lr=0.0).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("make", [
    lambda: cosine_decay(1, 0, 0.1), lambda: cosine_decay(1, 5, 0.1, cycle_multiplier=0),
    lambda: step_decay(1, 3, 0.1, factor=0.0), lambda: one_cycle(1, 10, 0.1, pct_start=1.0),
])  # fmt: skip
def test_what_is_no_schedule_is_refused(make):
    with pytest.raises(UsageError, match="needs"):
        make()
