"""Schedules against their closed forms."""

import math

import mlx.core as mx
import numpy as np
import pytest

from optimizers.schedules import Constant, Cosine, Linear
from runtime.errors import UsageError


def factors(schedule, count):
    return [float(schedule(mx.array(step, mx.int32))) for step in range(count)]


def test_warm_up_then_constant():
    np.testing.assert_allclose(factors(Constant(warmup=4), 7), [0.25, 0.5, 0.75, 1, 1, 1, 1])


@pytest.mark.parametrize("minimum", [0.0, 0.1])
def test_warm_up_then_half_a_cosine_down_to_a_least_share(minimum):
    wanted = [(step + 1) / 5 for step in range(5)]
    wanted += [minimum + (1 - minimum) * (1 + math.cos(math.pi * i / 20)) / 2 for i in range(20)] + [minimum] * 3
    np.testing.assert_allclose(factors(Cosine(total=25, warmup=5, minimum=minimum), 28), wanted, atol=1e-6)


def test_warm_up_then_a_line():
    np.testing.assert_allclose(factors(Linear(warmup=2, total=6), 8), [0.5, 1, 1, 0.75, 0.5, 0.25, 0, 0])


def test_a_warm_up_longer_than_the_whole_is_refused():
    with pytest.raises(UsageError, match="warmup=9, total=9"):
        Cosine(total=9, warmup=9)
