"""Wide residual networks against FastEstimator's in PyTorch; dropout; depths."""

import mlx.core as mx
import numpy as np
import pytest

from models.wide_resnet import WideResidualNetwork
from runtime.errors import UsageError
from tests.models.parity import FIXTURES, compare, filled, given, numbers


def test_equals_fastestimators():
    model, x = filled(WideResidualNetwork(10, 5, 2)), given("x", (2, 16, 12, 3))
    compare("wide", model(x))
    compare("wide", model.train()(x), key="trained", tolerance=2e-4)


def test_counts():
    assert numbers(WideResidualNetwork()) == FIXTURES["wide"]["count"]  # lazy: no weight is computed
    assert numbers(WideResidualNetwork(40, 100, 2)) == FIXTURES["wide"]["count40"]


def test_dropout_follows_the_key_and_training():
    model, x = filled(WideResidualNetwork(10, 5, 1, dropout=0.3), training=True), given("x", (2, 8, 8, 3))
    plain, one, again, other = (model(x, key=k and mx.random.key(k)) for k in (None, 1, 1, 2))
    assert mx.array_equal(one, again).item() and not mx.allclose(one, other).item()
    assert not mx.allclose(plain, one).item()
    model.train(False)
    assert mx.array_equal(model(x, key=mx.random.key(1)), model(x)).item()


def test_convolutions_start_from_he_normals_of_the_fan_out():
    mx.random.seed(0)
    weight = WideResidualNetwork(10, 5, 4).blocks[2].conv2.weight
    assert abs(weight.std().item() / np.sqrt(2 / (9 * 256)) - 1) < 0.01


def test_other_depths_are_refused():
    with pytest.raises(UsageError, match="got 12"):
        WideResidualNetwork(12)
