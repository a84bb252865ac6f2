"""A convolutional variational autoencoder (arXiv 1312.6114) of binary images.

python scripts/run_estimator.py run examples/cvae.py --epochs 2
"""

import math
import tempfile

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx
import mlx.nn as nn
import numpy as np

from dataloaders.datasets.loaders import fashion_mnist
from dataloaders.ops.values import Binarize, Minmax
from dataloaders.pipeline import Pipeline
from models.cvae import Decoder, Encoder, reparametrise
from ops.losses.cross_entropy import CrossEntropy
from ops.model_op import ModelOp
from runtime.op import Context, TensorOp
from traces.io.logger import Logger
from traces.io.model_saver import BestModelSaver
from training.build import build
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp
from visualizers.grids import save_grid


class Reparametrise(TensorOp):
    """Draws z from N(mean, exp(logvar)), so that gradients reach both (section 2.4)."""

    def forward(self, data: list[mx.array], state: Context) -> mx.array:
        """Mean and log variance (B, latent) -> (B, latent)."""
        mean, logvar = data
        return reparametrise(mean, logvar, state.key)


class NegativeELBO(TensorOp):
    """Nats an image: the cross-entropy of all pixels and KL(q(z|x) || N(0, I)) in closed form (appendix B)."""

    def __init__(self, inputs: tuple[str, str, str], outputs: str, pixels: int):
        super().__init__(inputs, outputs, mode="!infer")
        self.pixels = pixels

    def forward(self, data: list[mx.array], state: Context) -> mx.array:
        """Mean cross-entropy of the pixels (B,), mean and log variance (B, latent) -> (B,)."""
        entropy, mean, logvar = data
        return self.pixels * entropy + 0.5 * (mx.exp(logvar) + mean.square() - 1 - logvar).sum(axis=-1)


def get_estimator(
    batch_size: int = 100,
    epochs: int = 20,
    latent: int = 2,
    train_steps_per_epoch: int | None = None,
    log_steps: int = 100,
    save_dir: str = "",
    root: str = "data/fashion_mnist",
    seed: int = 0,
) -> Estimator:
    """An estimator of both halves; "eval/loss" is the negative ELBO of the test images in nats."""
    mx.random.seed(seed)  # of the initial weights
    train_data, eval_data = fashion_mnist.load_data(root)
    test_data = eval_data.split(0.5)
    pipeline = Pipeline(
        train_data=train_data,
        eval_data=eval_data,
        test_data=test_data,
        batch_size=batch_size,
        seed=seed,
        ops=[Minmax(inputs="x", outputs="x"), Binarize(inputs="x", outputs="x", threshold=0.5)],
    )
    encoder = build(model_fn=lambda: Encoder(latent=latent), optimizer_fn="adam", model_name="encoder")
    decoder = build(model_fn=lambda: Decoder(latent=latent, logits=True), optimizer_fn="adam", model_name="decoder")
    network = Network(
        ops=[
            ModelOp(model=encoder, inputs="x", outputs=("mean", "logvar")),
            Reparametrise(inputs=("mean", "logvar"), outputs="z"),
            ModelOp(model=decoder, inputs="z", outputs="x_logit"),
            CrossEntropy(inputs=("x_logit", "x"), outputs="ce", from_logits=True, average_loss=False, form="binary"),
            NegativeELBO(inputs=("ce", "mean", "logvar"), outputs="loss", pixels=28 * 28),
            UpdateOp(model=encoder, loss_name="loss"),
            UpdateOp(model=decoder, loss_name="loss"),
        ]
    )
    folder = save_dir or tempfile.mkdtemp()
    traces = [
        BestModelSaver(model=encoder, save_dir=folder),
        BestModelSaver(model=decoder, save_dir=folder),
        Logger(log_steps=log_steps),
    ]
    return Estimator(pipeline, network, epochs, traces, seed=seed, train_steps_per_epoch=train_steps_per_epoch)


def importance_bound(encoder: nn.Module, decoder: nn.Module, x: mx.array, draws: int, key: mx.array) -> mx.array:
    """-ln 1/K sum_k p(x, z_k) / q(z_k | x) in nats, (B,), of binary images x (B, H, W, C) with K = draws from q.

    Tighter than the negative ELBO, and it tends to -ln p(x) as K grows (arXiv 1509.00519, equation 8).
    """
    mean, logvar = encoder(x)
    logs = []
    for own in mx.random.split(key, draws):
        noise = mx.random.normal(mean.shape, key=own)
        z = mean + mx.exp(0.5 * logvar) * noise
        logit = decoder(z)
        seen = (x * logit - mx.logaddexp(logit, 0.0)).reshape(len(x), -1).sum(axis=-1)
        logs.append(seen + 0.5 * (noise.square() - z.square() + logvar).sum(axis=-1))
    return math.log(draws) - mx.logsumexp(mx.stack(logs), axis=0)


def independent_pixels(train: np.ndarray, test: np.ndarray) -> float:
    """Nats an image of binary test images (N, ...) if each pixel is 1 as often as in training: the baseline."""
    rate = (train.reshape(len(train), -1).sum(axis=0) + 1) / (len(train) + 2)
    seen = test.reshape(len(test), -1)
    return float(-(seen * np.log(rate) + (1 - seen) * np.log(1 - rate)).sum(axis=-1).mean())


def binary(data, count: int) -> np.ndarray:
    """The first images of a data set as the pipeline binarizes them, (count, 28, 28, 1)."""
    x = data["x"][:count].astype(np.float32)
    low, high = (f(x, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    return ((x - low) / np.maximum(high - low, 1e-7) >= 0.5).astype(np.float32)


def fastestimator_run(epochs: int = 2, batch_size: int = 100, latent: int = 2,
                      train_steps_per_epoch: int | None = None, draws: int = 100, count: int = 1000,
                      picture: str = "outputs/cvae.png", root: str = "data/fashion_mnist") -> None:  # fmt: skip
    """Trains, prints nats an image of the first `count` test images beside the baseline, draws 64 samples."""
    estimator = get_estimator(batch_size, epochs, latent, train_steps_per_epoch, root=root)
    estimator.fit()
    encoder, decoder = (estimator.network.models[name].eval() for name in ("encoder", "decoder"))
    train, test = estimator.pipeline.source("train"), binary(estimator.pipeline.source("eval"), count)
    bound = importance_bound(encoder, decoder, mx.array(test), draws, mx.random.key(0)).mean().item()
    print(f"importance bound, {draws} draws: {bound:.2f} nats an image")
    print(f"independent pixels: {independent_pixels(binary(train, len(train)), test):.2f} nats an image")
    samples = mx.sigmoid(decoder(mx.random.normal((64, latent), key=mx.random.key(1))))
    print(save_grid(np.array(samples) * 2 - 1, picture))


if __name__ == "__main__":
    fastestimator_run()
