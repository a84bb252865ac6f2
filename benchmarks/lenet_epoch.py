"""Wall time of LeNet on Fashion-MNIST, ours and FastEstimator's, in turns; JSON lines, then the ratio.

python benchmarks/lenet_epoch.py --root FOLDER [--epochs 1] [--batch-size 128] [--turns 3]
                                 [--fastestimator-python PATH]

Both: the same images, Minmax per sample, LeNet, cross-entropy, Adam 1e-3, accuracy on the 10,000 test images after each
epoch; the time is that of fit with its evaluation, compilation included. The ratio is ours over theirs, of medians.
"""

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.turns import medians  # noqa: E402


def ours(given: argparse.Namespace) -> dict:
    """One fit in this process."""
    import runtime.blas  # noqa: F401  before mlx

    # isort: split
    from dataloaders.datasets.loaders import fashion_mnist
    from dataloaders.ops.values import Minmax
    from dataloaders.pipeline import Pipeline
    from models.lenet import LeNet
    from ops.losses.cross_entropy import CrossEntropy
    from ops.model_op import ModelOp
    from traces.io.logger import Logger
    from traces.metrics.accuracy import Accuracy
    from training.build import build
    from training.estimator import Estimator
    from training.network import Network
    from training.update import UpdateOp

    train, test = fashion_mnist.load_data(given.root)
    pipeline = Pipeline(
        train_data=train, eval_data=test, batch_size=given.batch_size, ops=[Minmax(inputs="x", outputs="x")],
        num_process=given.num_process,
    )  # fmt: skip
    model = build(model_fn=lambda: LeNet(shape=(28, 28, 1), classes=10), optimizer_fn="adam")
    network = Network(
        [ModelOp(model, "x", "y_pred"), CrossEntropy(("y_pred", "y"), "ce"), UpdateOp(model, loss_name="ce")]
    )
    estimator = Estimator(pipeline, network, given.epochs, [Accuracy("y", "y_pred"), Logger(100)])
    begin = time.perf_counter()
    summary = estimator.fit()
    seconds = time.perf_counter() - begin
    return {"variant": "ours", "seconds": round(seconds, 2), "accuracy": summary.latest["eval/accuracy"],
            "batch": given.batch_size, "epochs": given.epochs, "num_process": given.num_process, "mlx": version("mlx"),
            "numpy": version("numpy")}  # fmt: skip


def main() -> None:
    """Turns of both, each fit in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data/fashion_mnist")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--num-process", type=int, default=0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--fastestimator-python", metavar="PATH")
    parser.add_argument("--worker", action="store_true")
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(ours(given)))
        return
    options = ["--root", given.root, "--epochs", str(given.epochs), "--batch-size", str(given.batch_size)]
    options += ["--num-process", str(given.num_process)]
    commands = {"ours": [sys.executable, str(HERE / "lenet_epoch.py"), "--worker", *options]}
    if given.fastestimator_python:
        commands["fastestimator"] = [given.fastestimator_python, str(HERE / "lenet_fastestimator.py"), *options]
    middle = medians(commands, "seconds", given.turns)
    if "fastestimator" in middle:
        print(json.dumps({"ours / fastestimator": round(middle["ours"] / middle["fastestimator"], 3)}))


if __name__ == "__main__":
    main()
