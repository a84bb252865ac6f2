"""LeNet against FastEstimator's."""

import mlx.core as mx
import numpy as np
import pytest

from models.lenet import LeNet
from runtime.errors import UsageError
from tests.models.parity import FIXTURES, compare, filled, given, numbers


def test_equals_fastestimators():
    model, x = filled(LeNet((20, 18, 2), classes=5, logits=True)), given("x", (3, 20, 18, 2))
    compare("lenet", model(x))
    model.logits = False
    compare("lenet", model(x), key="probabilities")
    compare("lenet28", filled(LeNet(logits=True))(given("x", (4, 28, 28, 1))))
    assert numbers(LeNet()) == FIXTURES["lenet"]["count"] == 93_322


def test_starts_as_pytorchs_layers_do():
    mx.random.seed(0)
    layer = LeNet().conv2
    bound = 1 / np.sqrt(9 * 32)
    for array in (layer.weight, layer.bias):
        assert 0.9 * bound < mx.abs(array).max().item() <= bound
    assert abs(layer.weight.std().item() / (bound / np.sqrt(3)) - 1) < 0.02  # a uniform one's deviation


def test_wrong_images_are_refused():
    with pytest.raises(UsageError, match="at least 18, got 17 x 28"):
        LeNet((17, 28, 1))
    with pytest.raises(UsageError, match=r"\(2, 1, 28, 28\)"):
        LeNet()(mx.zeros((2, 1, 28, 28)))
