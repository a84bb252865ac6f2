"""Means of a logged window: a metric of no row in a step counts nothing, a loss that is NaN shows."""

import math

import pytest

from traces.io.record import mean


def test_steps_in_which_a_metric_is_of_no_row_count_nothing():
    assert mean([math.nan, 1.0, 2.0], strict=False) == pytest.approx(1.5)
    assert math.isnan(mean([math.nan, math.nan], strict=False))


def test_a_loss_that_is_nan_in_one_step_is_nan():
    assert math.isnan(mean([math.nan, 1.0], strict=True))
    assert mean([1.0, 2.0], strict=True) == 1.5
