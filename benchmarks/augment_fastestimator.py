"""Augmentation by FastEstimator 1.7 (PyTorch), in an environment of its own: one JSON line.

A worker of augment.py, which says what is done. FastEstimator hands images to PyTorch with channels first, so that they
are transposed at the end of its pipeline.
"""

import argparse
import json
import time

import fastestimator as fe
import numpy as np
import torch
import torch.utils.data
from fastestimator.dataset import NumpyDataset
from fastestimator.op.numpyop.meta import Sometimes
from fastestimator.op.numpyop.multivariate import HorizontalFlip, PadIfNeeded, RandomCrop
from fastestimator.op.numpyop.univariate import ChannelTranspose, CoarseDropout, ColorJitter, Normalize, Onehot
from fastestimator.op.tensorop.augmentation import CutMixBatch, MixUpBatch

# FastEstimator 1.7 hands an argument to this that PyTorch has dropped since
torch.utils.data.Sampler.__init__ = lambda self, data_source=None: None  # type: ignore[method-assign]
CLASSES, SIZE, PADDED, HOLE = 10, 32, 40, 8
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WARM = 5


def main() -> None:
    """Times the batches after the first few."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--num-process", type=int, default=2)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    count = given.batch_size * (given.steps + WARM)
    data = NumpyDataset({
        "x": rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8), "y": rng.integers(0, CLASSES, count)
    })  # fmt: skip
    pipeline = fe.Pipeline(
        train_data=data, batch_size=given.batch_size, num_process=given.num_process,
        ops=[
            Sometimes(HorizontalFlip(image_in="x")),
            PadIfNeeded(PADDED, PADDED, image_in="x"),
            RandomCrop(SIZE, SIZE, image_in="x"),
            CoarseDropout("x", "x", max_holes=1, max_height=HOLE, max_width=HOLE),
            ColorJitter("x", "x"),
            Normalize("x", "x", mean=MEAN, std=STD),
            ChannelTranspose("x", "x"),
            Onehot("y", "y", num_classes=CLASSES),
        ],
    )  # fmt: skip
    mixing = [MixUpBatch(["x", "y"], ["x", "y"]), CutMixBatch(["x", "y"], ["x", "y"])]
    for op in mixing:
        op.build("torch", torch.device("cpu"))
    begin = 0.0
    with pipeline(mode="train", epoch=1) as loader:
        for step, batch in enumerate(loader):
            mixed = [batch["x"], batch["y"]]
            for op in mixing:
                mixed = op.forward(mixed, {"mode": "train"})
            begin = time.perf_counter() if step == WARM - 1 else begin
            if step == given.steps + WARM - 1:
                break
        seconds = time.perf_counter() - begin
    print(json.dumps({
        "variant": "fastestimator", "images_per_s": round(given.steps * given.batch_size / seconds),
        "batch": given.batch_size, "steps": given.steps, "num_process": given.num_process,
        "fastestimator": fe.__version__, "torch": torch.__version__,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
