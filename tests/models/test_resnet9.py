"""ResNet9 and its batch norm against FastEstimator's in PyTorch, in both modes; bf16."""

import mlx.core as mx
import numpy as np
import pytest

from models.batch_norm import BatchNorm
from models.resnet9 import ResNet9
from runtime.errors import UsageError
from tests.models.parity import FIXTURES, compare, filled, given, numbers

CASE = "resnet9"


def test_equals_fastestimators_in_evaluation_and_training():
    model, x = filled(ResNet9((20, 16, 3), classes=7, logits=True)), given("x", (3, 20, 16, 3))
    compare(CASE, model(x))
    model.logits = False
    compare(CASE, model(x), key="probabilities")
    model.logits = True
    compare(CASE, model.train()(x), key="trained", tolerance=2e-4)
    compare(CASE, model.levels[2].second.norm.running_mean, key="mean", tolerance=1e-4)  # momentum 0.1
    compare(CASE, model.enter.norm.running_var, key="var", tolerance=1e-4)  # momentum 0.2
    assert numbers(ResNet9()) == FIXTURES[CASE]["count"]


def test_small_images_are_refused():
    with pytest.raises(UsageError, match="at least 16, got 15 x 32"):
        ResNet9((15, 32, 3))


def test_batch_norm_takes_statistics_in_float32():
    x = 10 + 0.1 * mx.random.normal((64, 4, 4, 3), key=mx.random.key(0))  # in bf16 1 / 16 is the step at 10
    norm = BatchNorm(3, momentum=1.0)
    out = norm(x)
    np.testing.assert_allclose(np.array(out.mean(axis=(0, 1, 2))), 0, atol=1e-3)
    np.testing.assert_allclose(np.array(out.var(axis=(0, 1, 2))), 1, atol=1e-2)
    narrow = x.astype(mx.bfloat16)
    assert norm(narrow).dtype == mx.bfloat16
    wide = np.array(narrow.astype(mx.float32)).reshape(-1, 3)
    np.testing.assert_allclose(np.array(norm.running_mean), wide.mean(0), rtol=1e-5)
    np.testing.assert_allclose(np.array(norm.running_var), wide.var(0, ddof=1), rtol=1e-4)
    assert norm.train(False)(narrow).dtype == mx.bfloat16 and norm.running_mean.dtype == mx.float32
