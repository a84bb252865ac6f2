"""Knowledge distillation (arXiv 1503.02531): a small student learns from a trained LeNet that doesn't move.

python scripts/run_estimator.py train examples/fashion_mnist_lenet.py --epochs 1 --save_dir outputs/teacher
python scripts/run_estimator.py train examples/distillation.py --teacher outputs/teacher/model_best_accuracy.safetensors
"""

from functools import partial

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx
import mlx.nn as nn

from dataloaders.datasets.loaders import fashion_mnist
from dataloaders.ops.values import Minmax
from dataloaders.pipeline import Pipeline
from models.lenet import LeNet
from models.linear import Linear
from ops.loss_op import LossOp
from ops.losses.cross_entropy import CrossEntropy
from ops.model_op import ModelOp
from ops.tensor.shapes import LambdaOp
from runtime.op import Context
from traces.io.logger import Logger
from traces.metrics.accuracy import Accuracy
from training.build import build, load_model
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp


class Student(nn.Module):
    """A perceptron with one hidden layer over the pixels, to logits."""

    def __init__(self, hidden: int = 64, classes: int = 10):
        super().__init__()
        self.hidden, self.head = Linear(28 * 28, hidden), Linear(hidden, classes)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, 28, 28, 1) -> (B, classes)."""
        return self.head(nn.relu(self.hidden(x.reshape(len(x), -1))))


class Distillation(LossOp):
    """T^2 KL(teacher || student) of the softmax of logits (B, C) over T, section 2; inputs: (student, teacher)."""

    def __init__(self, inputs: tuple[str, str], outputs: str, temperature: float = 4.0, mode: str | None = "train"):
        super().__init__(inputs, outputs, mode)
        self.temperature = temperature

    def per_sample(self, data: list[mx.array], state: Context) -> mx.array:
        """(B,)."""
        ours, theirs = (x / self.temperature - mx.logsumexp(x / self.temperature, axis=-1, keepdims=True) for x in data)
        return self.temperature**2 * (mx.exp(theirs) * (theirs - ours)).sum(axis=-1)


def trained(file: str) -> LeNet:
    """The teacher, to logits, with the weights that its training saved."""
    teacher = LeNet(logits=True)
    load_model(teacher, file)
    return teacher


def blend(kl: mx.array, ce: mx.array, share: float) -> mx.array:
    """The student's loss: `share` of what the teacher says, the rest of what the labels say."""
    return share * kl + (1 - share) * ce


def get_estimator(
    teacher: str = "",
    samples: int = 500,
    share: float = 0.9,
    temperature: float = 4.0,
    epochs: int = 20,
    batch_size: int = 20,
    train_steps_per_epoch: int | None = None,
    eval_every: str = "1e",
    log_steps: int = 100,
    root: str = "data/fashion_mnist",
    seed: int = 0,
) -> Estimator:
    """An estimator of the student, trained on `samples` images; without `teacher`, the same from their labels alone.

    teacher: a file of LeNet's weights. share: of the distillation loss; the labels' cross-entropy has the rest.
    """
    mx.random.seed(seed)  # of the initial weights
    train_data, eval_data = fashion_mnist.load_data(root)
    test_data = eval_data.split(0.5)
    pipeline = Pipeline(
        train_data=train_data.split(samples),
        eval_data=eval_data,
        test_data=test_data,
        batch_size=batch_size,
        seed=seed,
        ops=[Minmax(inputs="x", outputs="x")],
    )
    student = build(model_fn=Student, optimizer_fn="adam", model_name="student")
    ops = [ModelOp(model=student, inputs="x", outputs="y_pred"),
           CrossEntropy(inputs=("y_pred", "y"), outputs="ce", from_logits=True)]  # fmt: skip
    if teacher:
        guide = build(model_fn=lambda: trained(teacher), model_name="teacher")
        ops += [
            ModelOp(model=guide, inputs="x", outputs="y_teacher", mode="train", trainable=False),
            Distillation(inputs=("y_pred", "y_teacher"), outputs="kl", temperature=temperature),
            LambdaOp(fn=partial(blend, share=share), inputs=("kl", "ce"), outputs="loss", mode="train"),
        ]
    network = Network(ops=[*ops, UpdateOp(model=student, loss_name="loss" if teacher else "ce")])
    traces = [Accuracy(true_key="y", pred_key="y_pred"), Logger(log_steps=log_steps)]
    return Estimator(
        pipeline=pipeline,
        network=network,
        epochs=epochs,
        traces=traces,
        train_steps_per_epoch=train_steps_per_epoch,
        eval_every=eval_every,
        seed=seed,
    )


def fastestimator_run(teacher: str, samples: int = 500, share: float = 0.9, temperature: float = 4.0,
                      epochs: int = 20, seeds: int = 3, root: str = "data/fashion_mnist") -> None:  # fmt: skip
    """Trains the student with and without the teacher from equal weights; prints the test accuracies."""
    for seed in range(seeds):
        found = {}
        for name, file in (("distilled", teacher), ("alone", "")):
            estimator = get_estimator(
                file, samples, share, temperature, epochs, eval_every=f"{epochs}e", root=root, seed=seed
            )
            estimator.fit()
            found[name] = estimator.test().latest["test/accuracy"]
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()))


if __name__ == "__main__":
    get_estimator().fit()
