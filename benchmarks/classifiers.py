"""ResNet9 and ViT-Tiny for 32 x 32 images beside PyTorch: ms per step, or the ResNet9 recipe whole; JSON lines.

python benchmarks/classifiers.py --model resnet9|vit_tiny [--device gpu] [--precision bf16] [--batch 512]
                                 [--torch-python PATH [--compiled]]
python benchmarks/classifiers.py --epochs 24 --root data/cifar10 [--seeds 3] ...

Without --epochs: one batch again and again, Adam; the ratio is ours over theirs, of medians. With --epochs:
examples/cifar10_resnet9.py, all 50,000 training images, accuracy on the 10,000 test images after each epoch; the
same arrays go to PyTorch. The time is that of fit with its evaluations, compilation included.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import runtime.blas  # noqa: E402, F401  before mlx

# isort: split
import mlx.core as mx  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.step_mlx import Batches, advance  # noqa: E402
from benchmarks.turns import run  # noqa: E402
from dataloaders.datasets.loaders import cifar10  # noqa: E402
from examples.cifar10_resnet9 import get_estimator  # noqa: E402
from models.resnet9 import ResNet9  # noqa: E402
from models.vit import ViTTiny  # noqa: E402
from ops.losses.cross_entropy import CrossEntropy  # noqa: E402
from ops.model_op import ModelOp  # noqa: E402
from runtime.device import describe, select  # noqa: E402
from runtime.trees import count_parameters  # noqa: E402
from training.build import build  # noqa: E402
from training.estimator import Estimator  # noqa: E402
from training.network import Network  # noqa: E402
from training.update import UpdateOp  # noqa: E402


def timed(given: argparse.Namespace) -> dict:
    """Milliseconds per step on one batch, through the estimator."""
    mx.random.seed(0)
    kinds = {"resnet9": lambda: ResNet9(channels=given.channels, logits=True),
             "vit_tiny": lambda: ViTTiny(shape=(32, 32, 3), classes=10, patch=4)}  # fmt: skip
    model = build(kinds[given.model], lambda: optim.Adam(learning_rate=1e-3, bias_correction=True))
    network = Network([ModelOp(model, "x", "y_pred"), CrossEntropy(("y_pred", "y"), "ce", from_logits=True),
                       UpdateOp(model, "ce")])  # fmt: skip
    batches = Batches((given.batch, 32, 32, 3))
    batches.batch["y"] = np.random.default_rng(1).integers(0, 10, given.batch).astype(np.int32)
    estimator = Estimator(batches, network, None, max_steps=0, eval_every=None, precision=given.precision)

    turn = partial(advance, estimator)
    first = turn(1)
    steps, times, started = max(1, round(1.0 / turn(2))), [], time.perf_counter()
    while time.perf_counter() - started < given.seconds or len(times) < 3:
        times.append(1e3 * turn(steps))
    return {"first_step_s": round(first, 2), "median_ms": round(statistics.median(times), 3),
            "best_ms": round(min(times), 3), "turns": len(times),
            "parameters": count_parameters(model, True)}  # fmt: skip


def fitted(given: argparse.Namespace, seed: int) -> dict:
    """Seconds and accuracy of the whole recipe."""
    estimator = get_estimator(given.epochs, given.batch, given.channels, given.rate, given.precision,
                              root=given.root, seed=seed)  # fmt: skip
    begin = time.perf_counter()
    summary = estimator.fit()
    seconds = round(time.perf_counter() - begin, 2)
    rows = [round(row["eval/accuracy"], 4) for row in summary.history if "eval/accuracy" in row]
    return {"seconds": seconds, "accuracy": rows[-1], "by_epoch": rows, "seed": seed}


def shown(line: dict) -> dict:
    """Prints a line and gives it back."""
    print(json.dumps(line), flush=True)
    return line


def torch_line(given: argparse.Namespace, *options: str) -> dict:
    """What classifiers_torch.py prints last; SystemExit with its message where it fails."""
    command = [given.torch_python, str(HERE / "classifiers_torch.py"), "--model", given.model, "--batch",
               str(given.batch), "--precision", given.precision, "--channels", str(given.channels), "--seconds",
               str(given.seconds), "--device", "gpu" if mx.default_device() == mx.gpu else "cpu", *options]  # fmt: skip
    return run(command)


def whole(given: argparse.Namespace) -> None:
    """The recipe by both, one seed after another, then the means of accuracy and seconds."""
    train, test = cifar10.load_data(given.root)
    found: dict[str, list[dict]] = {"ours": [], "torch": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cifar10.npz"
        np.savez(file, train_x=train["x"], train_y=train["y"], test_x=test["x"], test_y=test["y"])
        options = ("--epochs", str(given.epochs), "--data", str(file), "--rate", str(given.rate))
        for seed in range(given.seeds):
            found["ours"].append(shown({"variant": "ours", "model": "resnet9", "precision": given.precision,
                                        "batch": given.batch, **fitted(given, seed), **describe()}))  # fmt: skip
            if given.torch_python:
                found["torch"].append(torch_line(given, *options, "--seed", str(seed)))
    for name, lines in found.items():
        if lines:
            shown(
                {name: {key: round(statistics.mean(line[key] for line in lines), 4) for key in ("accuracy", "seconds")}}
            )


def main() -> None:
    """Ours first, then PyTorch's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["resnet9", "vit_tiny"], default="resnet9")
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--epochs", type=int, default=0, help="0: steps on one batch")
    parser.add_argument("--rate", type=float, default=0.04, help="the highest, with --epochs")
    parser.add_argument("--channels", type=int, default=64, help="of ResNet9")
    parser.add_argument("--root", default="data/cifar10")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--torch-python", metavar="PATH")
    parser.add_argument("--compiled", action="store_true", help="also torch.compile")
    given = parser.parse_args()
    select(given.device)
    if given.epochs:
        return whole(given)
    ours = shown({"variant": "ours", "model": given.model, "precision": given.precision, "batch": given.batch,
                  **timed(given), "peak_gb": round(mx.get_peak_memory() / 1e9, 2), **describe()})  # fmt: skip
    peers = (
        [torch_line(given, *more) for more in ([()] if not given.compiled else [(), ("--compile",)])]
        if given.torch_python
        else []
    )
    for line in peers:
        shown({f"ours / {line['variant']}": round(ours["median_ms"] / line["median_ms"], 3)})
        if line["parameters"] != ours["parameters"]:
            shown({"warning": f"the networks differ in size: {ours['parameters']} and {line['parameters']}"})


if __name__ == "__main__":
    main()
