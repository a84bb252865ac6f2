"""DCGAN (arXiv 1511.06434) on Fashion-MNIST: two models, two losses, two optimizers.

python scripts/run_estimator.py run examples/dcgan.py --epochs 2
"""

import tempfile

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from dataloaders.datasets.loaders import fashion_mnist
from dataloaders.ops.numpy_op import NumpyOp
from dataloaders.ops.pixels import Normalize
from dataloaders.pipeline import Pipeline
from evaluation.efficientnet import EfficientNetLite0
from evaluation.fid import kernel_distance
from models.dcgan import Discriminator, Generator
from ops.model_op import ModelOp
from runtime.op import Context, TensorOp
from traces.io.logger import Logger
from traces.io.model_saver import ModelSaver
from training.build import build
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp
from visualizers.grids import save_grid


class Noise(NumpyOp):
    """A sample's latent numbers, (100,) float32."""

    def forward(self, data, state) -> np.ndarray:
        """Normal numbers of the pipeline's own generator, so that a resumed run draws the same."""
        return state["rng"].standard_normal(100, dtype=np.float32)


class GLoss(TensorOp):
    """The generator's loss: that its images are taken for real ones."""

    def forward(self, data: mx.array, state: Context) -> mx.array:
        """Logits (B, 1) -> 0-d."""
        return nn.losses.binary_cross_entropy(data, mx.ones_like(data), with_logits=True, reduction="mean")


class DLoss(TensorOp):
    """The discriminator's loss: real images taken for real, the generator's for made."""

    def forward(self, data: list[mx.array], state: Context) -> mx.array:
        """Logits (B, 1) of real and of made images -> 0-d."""
        true_score, fake_score = data
        ones, zeros = mx.ones_like(true_score), mx.zeros_like(fake_score)
        real_loss = nn.losses.binary_cross_entropy(true_score, ones, with_logits=True, reduction="mean")
        fake_loss = nn.losses.binary_cross_entropy(fake_score, zeros, with_logits=True, reduction="mean")
        return real_loss + fake_loss


def get_estimator(
    epochs: int = 50,
    batch_size: int = 256,
    learning_rate: float = 1e-4,
    beta: float = 0.9,
    channels: int = 256,
    train_steps_per_epoch: int | None = None,
    log_steps: int = 100,
    save_dir: str = "",
    root: str = "data/fashion_mnist",
    seed: int = 0,
) -> Estimator:
    """An estimator of both models; each update lowers its own loss, both with gradients from before either moves.

    beta: Adam's first; .5 in the paper. channels: of the generator's first map, four times the discriminator's.
    """
    mx.random.seed(seed)  # of the initial weights
    train_data, _ = fashion_mnist.load_data(root)
    pipeline = Pipeline(
        train_data=train_data,
        batch_size=batch_size,
        seed=seed,
        ops=[Normalize(inputs="x", outputs="x", mean=1.0, std=1.0, max_pixel_value=127.5), Noise(outputs="z")],
    )
    gen_model, disc_model = build(
        model_fn=lambda: [Generator(channels=channels), Discriminator(channels=channels // 4)],
        optimizer_fn=[lambda: optim.Adam(learning_rate, [beta, 0.999], bias_correction=True)] * 2,
        model_name=["generator", "discriminator"],
    )
    network = Network(
        ops=[
            ModelOp(model=gen_model, inputs="z", outputs="x_fake"),
            ModelOp(model=disc_model, inputs="x_fake", outputs="fake_score"),
            GLoss(inputs="fake_score", outputs="gloss"),
            UpdateOp(model=gen_model, loss_name="gloss"),
            ModelOp(model=disc_model, inputs="x", outputs="true_score"),
            DLoss(inputs=("true_score", "fake_score"), outputs="dloss"),
            UpdateOp(model=disc_model, loss_name="dloss"),
        ]
    )
    traces = [
        ModelSaver(model=gen_model, save_dir=save_dir or tempfile.mkdtemp(), frequency=5),
        Logger(log_steps=log_steps),
    ]
    return Estimator(pipeline, network, epochs, traces, seed=seed, train_steps_per_epoch=train_steps_per_epoch)


def sampled(generator: nn.Module, count: int) -> np.ndarray:
    """Images (count, 28, 28, 1) in [-1, 1] from fixed noise, by the running statistics."""
    generator.eval()
    noise = mx.random.normal((count, 100), key=mx.random.key(0))
    return np.concatenate([np.array(generator(noise[i : i + 100])) for i in range(0, count, 100)])


def fastestimator_run(epochs: int = 2, batch_size: int = 256, learning_rate: float = 1e-4, beta: float = 0.9,
                      channels: int = 256, train_steps_per_epoch: int | None = None, count: int = 500,
                      picture: str = "outputs/dcgan.png", root: str = "data/fashion_mnist") -> None:  # fmt: skip
    """Trains; prints KID of EfficientNet-Lite0's features before, after and between halves of data; draws samples."""
    estimator = get_estimator(epochs, batch_size, learning_rate, beta, channels, train_steps_per_epoch, root=root)
    generator, features = estimator.network.models["generator"], EfficientNetLite0()
    data = estimator.pipeline.source("train")["x"][: 2 * count].astype(np.float32) / 127.5 - 1
    real, floor = features(data[:count]), features(data[count:])

    def distance(x: np.ndarray) -> float:
        return kernel_distance(x, real, subsets=1, subset_size=count, rng=np.random.default_rng(0))

    before = distance(features(sampled(generator, count)))
    estimator.fit()
    after = sampled(generator, count)
    print(f"KID-EffLite0, {count} images: {before:.4f} before, {distance(features(after)):.4f} after, "
          f"{distance(floor):.4f} of data against data")  # fmt: skip
    print(save_grid(after[:64], picture))


if __name__ == "__main__":
    get_estimator().fit()
