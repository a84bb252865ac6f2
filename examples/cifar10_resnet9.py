"""ResNet9 on CIFAR-10 by the recipe of FastEstimator's apphub: crop, flip, cutout, smoothed labels, Adam.

python scripts/run_estimator.py train examples/cifar10_resnet9.py --epochs 24
The same by the launcher: python launcher.py run_name=resnet9 experiment=cifar10_resnet9
"""

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx

from dataloaders.datasets.loaders import cifar10
from dataloaders.pipeline import Pipeline
from models.resnet9 import ResNet9
from ops.augment.boxes import Cutout
from ops.augment.moving import RandomCrop, RandomFlip
from ops.losses.cross_entropy import CrossEntropy
from ops.model_op import ModelOp
from ops.tensor.values import Normalize
from optimizers.schedules import Linear
from traces.io.logger import Logger
from traces.metrics.accuracy import Accuracy
from training.build import build
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


def get_estimator(
    epochs: int = 24,
    batch_size: int = 512,
    channels: int = 64,
    peak_lr: float = 0.04,
    precision: str = "fp32",
    train_steps_per_epoch: int | None = None,
    log_steps: int = 100,
    root: str = "data/cifar10",
    seed: int = 0,
) -> Estimator:
    """The rate rises over 5/24 of the steps and falls to 0; smaller `channels` make a network for a CPU."""
    mx.random.seed(seed)  # of the initial weights
    train_data, eval_data = cifar10.load_data(root)
    pipeline = Pipeline(train_data=train_data, eval_data=eval_data, batch_size=batch_size, seed=seed)
    model = build(lambda: ResNet9(channels=channels, logits=True), "adam")
    steps = epochs * (train_steps_per_epoch or pipeline.steps_per_epoch)
    network = Network(
        ops=[
            Normalize(inputs="x", outputs="x", mean=MEAN, std=STD),
            RandomCrop(32, 32, inputs="x", outputs="x", padding=4, border="reflect"),
            RandomFlip(inputs="x", outputs="x"),
            Cutout(inputs="x", outputs="x", size=8, contained=True),
            ModelOp(model=model, inputs="x", outputs="y_pred"),
            CrossEntropy(("y_pred", "y"), "ce", mode="train", from_logits=True, label_smoothing=0.2),
            CrossEntropy(("y_pred", "y"), "ce", mode=("eval", "test"), from_logits=True),
            UpdateOp(model=model, loss_name="ce", learning_rate=peak_lr, schedule=Linear(steps, steps * 5 // 24)),
        ]
    )
    traces = [Accuracy(true_key="y", pred_key="y_pred"), Logger(log_steps=log_steps)]
    return Estimator(pipeline, network, epochs, traces, seed=seed, precision=precision,
                     train_steps_per_epoch=train_steps_per_epoch)  # fmt: skip


if __name__ == "__main__":
    get_estimator().fit()
