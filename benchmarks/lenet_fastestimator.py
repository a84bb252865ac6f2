"""LeNet on Fashion-MNIST by FastEstimator 1.7 (PyTorch), in an environment of its own: one JSON line.

A worker of lenet_epoch.py. It pins numpy 1.26.4 and declares neither torch nor tensorflow, and imports both.
"""

import argparse
import gzip
import json
import time
from pathlib import Path

import fastestimator as fe
import numpy as np
import torch
import torch.utils.data
from fastestimator.architecture.pytorch import LeNet
from fastestimator.dataset import NumpyDataset
from fastestimator.op.numpyop.univariate import ExpandDims, Minmax
from fastestimator.op.tensorop.loss import CrossEntropy
from fastestimator.op.tensorop.model import ModelOp, UpdateOp
from fastestimator.trace.metric import Accuracy

# FastEstimator 1.7 hands an argument to this that PyTorch has dropped since
torch.utils.data.Sampler.__init__ = lambda self, data_source=None: None  # type: ignore[method-assign]


def read(folder: str, part: str) -> NumpyDataset:
    """Images (N, 28, 28) and labels (N,) of "train" or "t10k"."""
    images, labels = (
        np.frombuffer(gzip.decompress((Path(folder) / f"{part}-{kind}-ubyte.gz").read_bytes()), np.uint8, offset=skip)
        for kind, skip in (("images-idx3", 16), ("labels-idx1", 8))
    )
    return NumpyDataset({"x": images.reshape(-1, 28, 28), "y": labels.astype(np.int64)})


def main() -> None:
    """Trains and evaluates; the time is that of fit, evaluation included."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--num-process", type=int, default=0)
    given = parser.parse_args()
    pipeline = fe.Pipeline(
        train_data=read(given.root, "train"), eval_data=read(given.root, "t10k"), batch_size=given.batch_size,
        num_process=given.num_process,
        ops=[ExpandDims(inputs="x", outputs="x", axis=0), Minmax(inputs="x", outputs="x")],
    )  # fmt: skip
    model = fe.build(
        model_fn=lambda: LeNet(input_shape=(1, 28, 28)), optimizer_fn=lambda p: torch.optim.Adam(p, lr=1e-3)
    )
    network = fe.Network(ops=[
        ModelOp(model=model, inputs="x", outputs="y_pred"), CrossEntropy(inputs=("y_pred", "y"), outputs="ce"),
        UpdateOp(model=model, loss_name="ce"),
    ])  # fmt: skip
    accuracy = Accuracy(true_key="y", pred_key="y_pred")
    estimator = fe.Estimator(pipeline=pipeline, network=network, epochs=given.epochs, traces=[accuracy], log_steps=100)
    begin = time.perf_counter()
    summary = estimator.fit("bench", warmup=False)
    seconds = time.perf_counter() - begin
    found = list(summary.history["eval"]["accuracy"].values())[-1]
    print(json.dumps({
        "variant": "fastestimator", "seconds": round(seconds, 2), "accuracy": float(found), "batch": given.batch_size,
        "epochs": given.epochs, "num_process": given.num_process, "threads": torch.get_num_threads(),
        "fastestimator": fe.__version__, "torch": torch.__version__, "numpy": np.__version__,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
