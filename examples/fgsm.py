"""Adversarial training of LeNet with the fast gradient sign method (arXiv 1412.6572, equation of section 6).

python scripts/run_estimator.py run examples/fgsm.py --epochs 1 --batch_size 64
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
from ops.tensor.gradient import FGSM
from ops.tensor.shapes import Average
from traces.io.logger import Logger
from traces.io.model_saver import BestModelSaver
from traces.metrics.accuracy import Accuracy
from training.build import build
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp


def get_estimator(
    epsilon: float = 0.04,
    adversarial: bool = True,
    epochs: int = 10,
    batch_size: int = 32,
    train_steps_per_epoch: int | None = None,
    eval_steps_per_epoch: int | None = None,
    log_steps: int = 100,
    save_dir: str = "",
    root: str = "data/fashion_mnist",
    seed: int = 0,
) -> Estimator:
    """An estimator that trains on clean and attacked images alike (on clean ones alone without `adversarial`).

    epsilon: how far the attack moves every pixel of images in [0, 1]. Both are judged on clean and on attacked images.
    """
    mx.random.seed(seed)  # of the initial weights
    train_data, eval_data = fashion_mnist.load_data(root)
    test_data = eval_data.split(0.5)
    pipeline = Pipeline(
        train_data=train_data,
        eval_data=eval_data,
        test_data=test_data,
        batch_size=batch_size,
        seed=seed,
        ops=[Minmax(inputs="x", outputs="x")],
    )
    model = build(model_fn=LeNet, optimizer_fn="adam")
    network = Network(
        ops=[
            ModelOp(model=model, inputs="x", outputs="y_pred"),
            CrossEntropy(inputs=("y_pred", "y"), outputs="base_ce"),
            FGSM(data="x", loss="base_ce", outputs="x_adverse", epsilon=epsilon),
            ModelOp(model=model, inputs="x_adverse", outputs="y_pred_adv"),
            CrossEntropy(inputs=("y_pred_adv", "y"), outputs="adv_ce"),
            Average(inputs=("base_ce", "adv_ce"), outputs="avg_ce"),
            UpdateOp(model=model, loss_name="avg_ce" if adversarial else "base_ce"),
        ]
    )
    traces = [
        Accuracy(true_key="y", pred_key="y_pred", output_name="base accuracy"),
        Accuracy(true_key="y", pred_key="y_pred_adv", output_name="adversarial accuracy"),
        BestModelSaver(model=model, save_dir=save_dir or tempfile.mkdtemp(), metric="adv_ce", save_best_mode="min"),
        Logger(log_steps=log_steps),
    ]
    return Estimator(
        pipeline=pipeline,
        network=network,
        epochs=epochs,
        traces=traces,
        train_steps_per_epoch=train_steps_per_epoch,
        eval_steps_per_epoch=eval_steps_per_epoch,
        seed=seed,
    )


if __name__ == "__main__":
    estimator = get_estimator()
    estimator.fit()
    estimator.test()
