"""A classifier of tiny images that trains in a blink, for traces to watch."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from dataloaders.pipeline import Pipeline
from dataloaders.source import Source
from ops.loss_op import LossOp
from ops.model_op import ModelOp
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp

SIDE, CLASSES = 4, 3


class Rows(Source):
    """`size` images (4, 4, 1) with labels and ids."""

    shape, classes = (SIDE, SIDE, 1), CLASSES

    def __init__(self, size, seed=0):
        rng = np.random.default_rng(seed)
        self.x = rng.uniform(-1, 1, (size, *self.shape)).astype(np.float32)
        self.label = rng.integers(CLASSES, size=(size,)).astype(np.int32)

    def __len__(self):
        return len(self.x)

    def take(self, indices, rng):
        return {"x": self.x[indices], "label": self.label[indices], "id": indices.astype(np.int32)}

    def fingerprint(self):
        return "rows"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(SIDE * SIDE, CLASSES)

    def __call__(self, x):
        return self.layer(x.reshape(len(x), -1))


class CrossEntropy(LossOp):
    def per_sample(self, data, state):
        return nn.losses.cross_entropy(*data)


def estimator(traces=(), epochs=2, train=32, held=10, ops=(), rate=0.1, **options):
    """4 steps of 8 an epoch; evaluation on 10 rows (a last short batch), test on 6."""
    mx.random.seed(0)
    model = Net()
    network = Network(
        [
            ModelOp(model, "x", "y"),
            CrossEntropy(("y", "label"), "each", average_loss=False),
            *ops,
            CrossEntropy(("y", "label"), "ce"),
            UpdateOp(model, loss_name="ce", optimizer=optim.SGD, learning_rate=rate),
        ]
    )
    pipeline = Pipeline(Rows(train), Rows(held, 1), Rows(6, 2), 8)
    traces = traces(model) if callable(traces) else traces
    return Estimator(pipeline, network, epochs, traces, **options)
