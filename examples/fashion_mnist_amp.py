"""LeNet on Fashion-MNIST in lower precision: weights and averages stay float32, fp16's loss is scaled.

python scripts/run_estimator.py train examples/fashion_mnist_amp.py --precision fp16
The same by the launcher: python launcher.py run_name=amp experiment=fashion_mnist_lenet precision=fp16
"""

from typing import Literal

from examples import fashion_mnist_lenet
from training.estimator import Estimator


def get_estimator(
    epochs: int = 2,
    batch_size: int = 32,
    precision: Literal["fp32", "bf16", "fp16"] = "bf16",
    log_steps: int = 500,
    root: str = "data/fashion_mnist",
    seed: int = 0,
) -> Estimator:
    """The estimator of examples/fashion_mnist_lenet.py with another precision of the forward pass."""
    return fashion_mnist_lenet.get_estimator(
        epochs, batch_size, log_steps=log_steps, root=root, precision=precision, seed=seed
    )


if __name__ == "__main__":
    estimator = get_estimator()
    estimator.fit()
    estimator.test()
