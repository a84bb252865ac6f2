"""Images a second through flip, crop, cutout, colour jitter, normalise, MixUp and CutMix; JSON lines, then ratios.

python benchmarks/augment.py [--device cpu|gpu] [--batch-size 128] [--steps 40] [--num-process 2] [--turns 3]
                             [--fastestimator-python PATH]

Random uint8 images (32, 32, 3) and labels from memory to batches on the device:
device: NumPy batches sent over, all seven ops batched in one compiled graph (ops/augment).
albumentations: the first five one image at a time in the loader's processes (dataloaders/ops), MixUp and CutMix on
the device as above. fastestimator: its pipeline with the same ops, its MixUpBatch and CutMixBatch on PyTorch. The start
of a loader and compilation are not timed. Each run has a process of its own; a ratio is that of medians over the turns.
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

CLASSES, SIZE, PADDED, HOLE = 10, 32, 40, 8
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WARM = 5  # batches before the clock starts


def device_ops(given: argparse.Namespace, whole: bool):
    """Images and labels (B, ...) to images and label shares, compiled: all seven ops, or MixUp and CutMix alone."""
    import mlx.core as mx

    from ops.augment.boxes import Cutout
    from ops.augment.color import ColorJitter
    from ops.augment.mixing import CutMixBatch, MixUpBatch
    from ops.augment.moving import RandomCrop, RandomFlip
    from ops.tensor.shapes import LambdaOp
    from ops.tensor.values import Normalize
    from runtime.op import Context
    from training.network import Network

    mx.set_default_device(mx.Device(mx.gpu if given.device == "gpu" else mx.cpu))
    first = [
        RandomFlip("x", "x"),
        RandomCrop(SIZE, SIZE, "x", "x", padding=(PADDED - SIZE) // 2, border="reflect"),
        Cutout("x", "x", size=HOLE, contained=True),
        LambdaOp(lambda x: x.astype(mx.float32) / 255, "x", "x"),
        ColorJitter("x", "x"),
        Normalize("x", "x", MEAN, STD, max_pixel_value=1.0),
    ]
    last = [MixUpBatch(["x", "y"], ["x", "y"], num_classes=CLASSES), CutMixBatch(["x", "y"], ["x", "y"])]
    network, zero = Network([*(first if whole else []), *last]), mx.array(0, mx.int32)

    def run(x: mx.array, y: mx.array, key: mx.array) -> tuple[mx.array, mx.array]:
        out = network.forward({"x": x, "y": y}, Context("train", key, zero, zero))
        return out["x"], out["y"]

    return mx.compile(run)


def ours(given: argparse.Namespace) -> dict:
    """The rate of "device" or "albumentations" in this process."""
    import runtime.blas  # noqa: F401  before mlx

    # isort: split
    import mlx.core as mx
    import numpy as np

    from dataloaders.datasets.rows import NumpyDataset
    from dataloaders.ops import geometry, pixels
    from dataloaders.ops.meta import Sometimes
    from dataloaders.pipeline import Pipeline

    host = given.worker == "albumentations"
    rng = np.random.default_rng(0)
    count = given.batch_size * (given.steps + WARM)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, count)
    run = device_ops(given, whole=not host)
    if host:
        each = [
            Sometimes(geometry.HorizontalFlip(image_in="x")),
            geometry.PadIfNeeded(PADDED, PADDED, image_in="x"),
            geometry.RandomCrop(SIZE, SIZE, image_in="x"),
            pixels.CoarseDropout("x", "x", max_holes=1, max_height=HOLE, max_width=HOLE),
            pixels.ColorJitter("x", "x"),
            pixels.Normalize("x", "x", mean=MEAN, std=STD),
        ]
        data = NumpyDataset({"x": images, "y": labels})
        pipeline = Pipeline(train_data=data, batch_size=given.batch_size, ops=each, num_process=given.num_process)
        batches = ((batch["x"], batch["y"]) for batch in pipeline.batches("train"))
    else:
        order = rng.permutation(count).reshape(-1, given.batch_size)
        batches = ((images[rows], labels[rows]) for rows in order)
    begin = 0.0
    for step in range(given.steps + WARM):
        x, y = next(batches)
        mx.eval(run(mx.array(x), mx.array(y), mx.random.key(step)))
        begin = time.perf_counter() if step == WARM - 1 else begin
    seconds = time.perf_counter() - begin
    rate = round(given.steps * given.batch_size / seconds)
    return {"variant": given.worker, "images_per_s": rate, "batch": given.batch_size, "steps": given.steps,
            "num_process": given.num_process if host else 0, "device": given.device,
            "mlx": version("mlx"), "albumentations": version("albumentations")}  # fmt: skip


def main() -> None:
    """Turns of all variants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--num-process", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--fastestimator-python", metavar="PATH")
    parser.add_argument("--worker", choices=["device", "albumentations"])
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(ours(given)))
        return
    sizes = [
        "--batch-size",
        str(given.batch_size),
        "--steps",
        str(given.steps),
        "--num-process",
        str(given.num_process),
    ]
    own = [sys.executable, str(HERE / "augment.py"), "--device", given.device, *sizes, "--worker"]
    commands = {name: [*own, name] for name in ("device", "albumentations")}
    if given.fastestimator_python:
        commands["fastestimator"] = [given.fastestimator_python, str(HERE / "augment_fastestimator.py"), *sizes]
    middle = medians(commands, "images_per_s", given.turns)
    others = [name for name in commands if name != "device"]
    print(json.dumps({f"device / {name}": round(middle["device"] / middle[name], 2) for name in others}))


if __name__ == "__main__":
    main()
