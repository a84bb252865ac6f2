"""LeNet against FastEstimator's, and max pooling and bilinear doubling against what they say."""

import mlx.core as mx
import numpy as np
import pytest

from models.lenet import LeNet
from models.pooling import double_bilinear, max_pool
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


def test_max_pool_cuts_a_remainder_and_passes_gradients_to_the_largest():
    x = mx.array([[1.0, 5, 9], [2, 3, 9], [9, 9, 9]]).reshape(1, 3, 3, 1)
    assert max_pool(x).tolist() == [[[[5.0]]]]
    gradient = mx.grad(lambda x: 2 * max_pool(x).sum())(x)
    assert gradient.reshape(3, 3).tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]


def test_doubling_keeps_linear_images_and_their_corners():
    rows, columns = np.arange(3.0)[:, None], np.arange(5.0)
    image = (2 * rows - 3 * columns + 1).astype(np.float32)
    wanted = 2 * np.linspace(0, 2, 6)[:, None] - 3 * np.linspace(0, 4, 10) + 1
    got = double_bilinear(mx.array(image).reshape(1, 3, 5, 1))
    np.testing.assert_allclose(np.array(got)[0, :, :, 0], wanted, atol=1e-5)
