"""Three steps of SGD with momentum beside PyTorch's: losses, every leaf's gradient, weights and statistics at the end.

fixtures_training.json holds numbers only: FastEstimator 1.7's ResNet9 (a quarter of its channels, no softmax) and
torchvision 0.28's VisionTransformer with ViT-Tiny's sizes were given `drawn` weights by our names and the same batches,
float32. Kept are the losses, of every leaf the norm of its first gradient, how far it has moved after three steps, and
two of its numbers.
"""

import json
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from models.resnet9 import ResNet9
from models.vit import ViTTiny
from ops.losses.cross_entropy import CrossEntropy
from ops.model_op import ModelOp
from runtime.slots import snapshot
from tests.models.parity import filled, given
from tests.training.by_hand import KEY, weights
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp

FIXTURES = json.loads((Path(__file__).parent / "fixtures_training.json").read_text())
CASES = {
    "resnet9": (lambda: ResNet9((20, 16, 3), classes=7, channels=16, logits=True), (8, 20, 16, 3), 7),
    "vit_tiny": (lambda: ViTTiny(shape=(16, 16, 3), classes=10, patch=8), (4, 16, 16, 3), 10),
}


def norm(array):
    return np.linalg.norm(np.array(array, np.float64))


@pytest.mark.parametrize("case", CASES)
def test_three_steps_equal_pytorchs(case):
    (make, shape, classes), wanted = CASES[case], FIXTURES[case]
    model = filled(make(), training=True)
    start = weights(model)
    network = Network([ModelOp(model, "x", "y_pred"), CrossEntropy(("y_pred", "label"), "loss", from_logits=True),
                       UpdateOp(model, "loss", optim.SGD(wanted["rate"], momentum=0.9))])  # fmt: skip
    step, losses, gradients = TrainStep(network), [], {}
    for i in range(3):
        label = mx.array((np.arange(shape[0]) * 3 + i) % classes)
        losses.append(float(step({"x": given(f"x{i}", shape), "label": label}, KEY)["loss"]))
        if i == 0:  # momentum starts at 0, so that it is the gradient now
            found = snapshot(network.updates[0].groups[0].optimizer.state)
            gradients = {path.removesuffix(".v"): norm(v) for path, v in found.items() if path.endswith(".v")}
    end, leaves = weights(model), wanted["leaves"]
    np.testing.assert_allclose(losses, wanted["losses"], rtol=1e-5)
    assert end.keys() == leaves.keys() and gradients.keys() == {path for path in leaves if "grad" in leaves[path]}
    # biases in front of a norm, and of keys, have gradients of 0 but for rounding
    small = 1e-6 * max(leaf.get("grad", 0) for leaf in leaves.values())
    for path, leaf in leaves.items():
        if path in gradients:
            np.testing.assert_allclose(gradients[path], leaf["grad"], rtol=1e-4, atol=small, err_msg=path)
        np.testing.assert_allclose(norm(end[path] - start[path]), leaf["moved"], rtol=2e-4, atol=1e-6, err_msg=path)
        values = end[path].ravel()[:: max(1, end[path].size // 2)][:2]
        np.testing.assert_allclose(values, leaf["values"], rtol=1e-6, atol=2e-6, err_msg=path)
    assert not np.array_equal(end["head.weight"], start["head.weight"])
