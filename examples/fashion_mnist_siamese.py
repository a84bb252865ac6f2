"""One-shot learning on Fashion-MNIST: pairs of five classes to learn from, five other classes to tell apart.

python scripts/run_estimator.py train examples/fashion_mnist_siamese.py --epochs 1
The same by the launcher: python launcher.py run_name=siamese experiment=fashion_mnist_siamese
"""

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx

from dataloaders.datasets.loaders import fashion_mnist
from dataloaders.datasets.pairs import OneShotTrials, PairsDataset
from dataloaders.pipeline import Pipeline
from models.siamese import SiameseNetwork
from ops.losses.cross_entropy import CrossEntropy
from ops.model_op import ModelOp
from ops.tensor.resize import Resize
from ops.tensor.values import Normalize
from traces.io.logger import Logger
from traces.metrics.accuracy import Accuracy
from traces.metrics.one_shot import OneShotAccuracy
from training.build import build
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp

LEARNED, JUDGED = (0, 1, 4, 5, 8), (2, 3, 6, 7, 9)
WAYS = 5


def get_estimator(
    epochs: int = 1,
    batch_size: int = 32,
    size: int = 66,
    hidden: int = 128,
    channels: int = 8,
    trials: int = 400,
    train_steps_per_epoch: int | None = 400,
    log_steps: int = 50,
    root: str = "data/fashion_mnist",
    seed: int = 0,
) -> Estimator:
    """Trials show one image of a class that was never seen in training, beside one of each of five such classes.

    size: images are enlarged to it, since the network of Koch et al. needs 65 pixels.
    """
    mx.random.seed(seed)  # of the initial weights
    train_rows, eval_rows = fashion_mnist.load_data(root)
    pipeline = Pipeline(
        train_data=PairsDataset(train_rows, classes=LEARNED),
        eval_data=OneShotTrials(eval_rows, trials, WAYS, classes=JUDGED),
        batch_size=batch_size,
        seed=seed,
    )
    model = build(lambda: SiameseNetwork((size, size, 1), hidden, channels), "adam")
    network = Network(
        ops=[
            Normalize(inputs=("x_a", "x_b"), outputs=("x_a", "x_b"), mean=0.0, std=1.0),
            Resize(("x_a", "x_b"), ("x_a", "x_b"), output_shape=(size, size), resize_mode="bilinear"),
            ModelOp(model=model, inputs=("x_a", "x_b"), outputs="y_pred"),
            CrossEntropy(inputs=("y_pred", "y"), outputs="bce", form="binary"),
            UpdateOp(model=model, loss_name="bce"),
        ]
    )
    traces = [
        Accuracy(true_key="y", pred_key="y_pred"),
        OneShotAccuracy(true_key="y", pred_key="y_pred", ways=WAYS),
        Logger(log_steps=log_steps),
    ]
    return Estimator(pipeline, network, epochs, traces, seed=seed, train_steps_per_epoch=train_steps_per_epoch)


if __name__ == "__main__":
    get_estimator().fit()
