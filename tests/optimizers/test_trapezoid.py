"""The trapezoid of a learning rate against its formula, and that its end may move."""

import mlx.core as mx
import numpy as np
import pytest

from optimizers.schedules import Trapezoid
from runtime.errors import UsageError


def factors(schedule, steps):
    return np.array([float(schedule(mx.array(step))) for step in steps])


def test_factors():
    rising, falling = [(step + 1) / 10 for step in range(10)], [1 - 0.9 * i / 25 for i in range(25)]
    np.testing.assert_allclose(
        factors(Trapezoid(110, 10, 0.25, 0.1), range(130)), [*rising, *[1] * 75, *falling, *[0.1] * 20], atol=1e-6
    )


def test_it_may_be_made_longer_until_its_decay_begins():
    short, long = Trapezoid(110, 10, 0.2), Trapezoid(1100, 10, 0.2)
    assert (factors(short, range(90)) == factors(long, range(90))).all()
    assert factors(short, [100])[0] == pytest.approx(0.5) and factors(long, [100])[0] == 1


@pytest.mark.parametrize("decay", [0.0, 1.5])
def test_a_decay_that_is_no_share_is_refused(decay):
    with pytest.raises(UsageError, match="got"):
        Trapezoid(10, decay=decay)
