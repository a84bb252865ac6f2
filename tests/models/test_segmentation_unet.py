"""UNet and AttentionUNet against FastEstimator's in PyTorch."""

import mlx.core as mx
import numpy as np
import pytest

from models.segmentation_unet import AttentionUNet, UNet
from runtime.errors import UsageError
from tests.models.parity import FIXTURES, compare, filled, given, numbers

CASES = [("unet", UNet, 3), ("attention_unet", AttentionUNet, 1)]


@pytest.mark.parametrize(("case", "kind", "outputs"), CASES)
def test_equals_fastestimators(case, kind, outputs):
    model, x = filled(kind((16, 32, 2), outputs, channels=4, logits=True)), given("x", (2, 16, 32, 2))
    compare(case, model(x))
    if "trained" in FIXTURES[case]:  # it has batch norms
        compare(case, model.train()(x), key="trained", tolerance=5e-4)
        filled(model)
    model.logits = False
    compare(case, model(x), key="probabilities")
    assert numbers(kind()) == FIXTURES[case]["count"]  # lazy: no weight is computed


def test_starts_from_he_normals():
    mx.random.seed(0)
    model = UNet((16, 16, 1), channels=16)
    weight = model.bottleneck.conv2.weight
    assert abs(weight.std().item() / np.sqrt(2 / (9 * 256)) - 1) < 0.01
    assert mx.abs(model.bottleneck.conv2.bias).max().item() == 0


@pytest.mark.parametrize("size", [(24, 32), (16, 8)])
def test_images_that_cannot_be_halved_four_times(size):
    with pytest.raises(UsageError, match=f"multiples of 16, got {size[0]} x {size[1]}"):
        AttentionUNet((*size, 1))
