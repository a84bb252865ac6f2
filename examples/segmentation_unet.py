"""A UNet that parts coloured shapes from a noisy ground, in made images (dataloaders/scenes.py).

python scripts/run_estimator.py train examples/segmentation_unet.py --epochs 6
The same by the launcher: python launcher.py run_name=unet experiment=segmentation_unet
"""

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx

from dataloaders.pipeline import Pipeline
from dataloaders.scenes import Scenes
from models.segmentation_unet import UNet
from ops.losses.cross_entropy import CrossEntropy
from ops.model_op import ModelOp
from traces.io.logger import Logger
from traces.metrics.dice import Dice
from training.build import build
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp


def get_estimator(
    epochs: int = 6,
    batch_size: int = 16,
    channels: int = 8,
    size: int = 32,
    count: int = 4000,
    wanted: str | None = None,
    log_steps: int = 50,
    seed: int = 0,
) -> Estimator:
    """Masks of the shapes of the kind `wanted`, None for all; size: of an image, a multiple of 16."""
    mx.random.seed(seed)  # of the initial weights
    train_data = Scenes(count=count, size=size, wanted=wanted)
    eval_data = Scenes(count=max(count // 8, 1), size=size, wanted=wanted, seed=1)
    pipeline = Pipeline(train_data=train_data, eval_data=eval_data, batch_size=batch_size, seed=seed)
    model = build(lambda: UNet(shape=(size, size, 3), channels=channels), "adam")
    network = Network(
        ops=[
            ModelOp(model=model, inputs="x", outputs="y_pred"),
            CrossEntropy(inputs=("y_pred", "target"), outputs="bce", form="binary"),
            UpdateOp(model=model, loss_name="bce"),
        ]
    )
    traces = [Dice(true_key="target", pred_key="y_pred"), Logger(log_steps=log_steps)]
    return Estimator(pipeline=pipeline, network=network, epochs=epochs, traces=traces, seed=seed)


if __name__ == "__main__":
    get_estimator().fit()
