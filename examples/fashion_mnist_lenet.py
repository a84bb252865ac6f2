"""LeNet on Fashion-MNIST: the classifier that FastEstimator's users know.

python scripts/run_estimator.py train examples/fashion_mnist_lenet.py --epochs 2
The same by the launcher: python launcher.py run_name=lenet experiment=fashion_mnist_lenet
"""

import tempfile

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx

from dataloaders.datasets.loaders import fashion_mnist
from dataloaders.ops.values import Minmax
from dataloaders.pipeline import Pipeline
from models.lenet import LeNet
from ops.losses.cross_entropy import CrossEntropy
from ops.model_op import ModelOp
from optimizers.decays import cosine_decay
from traces.adapt.lr_scheduler import LRScheduler
from traces.io.logger import Logger
from traces.io.model_saver import BestModelSaver
from traces.metrics.accuracy import Accuracy
from training.build import build
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp


def get_estimator(
    epochs: int = 2,
    batch_size: int = 32,
    num_process: int = 0,
    log_steps: int = 500,
    save_dir: str = "",
    root: str = "data/fashion_mnist",
    precision: str = "fp32",
    seed: int = 0,
) -> Estimator:
    """An estimator whose test data is half of Fashion-MNIST's 10,000 test images, the other half its evaluation's."""
    mx.random.seed(seed)  # of the initial weights
    train_data, eval_data = fashion_mnist.load_data(root)
    test_data = eval_data.split(0.5)
    pipeline = Pipeline(
        train_data=train_data,
        eval_data=eval_data,
        test_data=test_data,
        batch_size=batch_size,
        num_process=num_process,
        seed=seed,
        ops=[Minmax(inputs="x", outputs="x")],
    )
    model = build(model_fn=lambda: LeNet(shape=(28, 28, 1), classes=10), optimizer_fn="adam")
    network = Network(
        ops=[
            ModelOp(model=model, inputs="x", outputs="y_pred"),
            CrossEntropy(inputs=("y_pred", "y"), outputs="ce"),
            UpdateOp(model=model, loss_name="ce"),
        ]
    )
    steps = epochs * pipeline.steps_per_epoch
    traces = [
        Accuracy(true_key="y", pred_key="y_pred"),
        BestModelSaver(model=model, save_dir=save_dir or tempfile.mkdtemp(), metric="accuracy", save_best_mode="max"),
        LRScheduler(model=model, lr_fn=lambda step: cosine_decay(step, cycle_length=steps, init_lr=1e-3)),
        Logger(log_steps=log_steps),
    ]
    return Estimator(pipeline=pipeline, network=network, epochs=epochs, traces=traces, seed=seed, precision=precision)


if __name__ == "__main__":
    estimator = get_estimator()
    estimator.fit()
    estimator.test()
