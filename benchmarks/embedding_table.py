"""Milliseconds of a training step against the size of an embedding table, one JSON line a size.

python benchmarks/embedding_table.py [--device cpu] [--counts 1000 100000 1000000] [--batches 8 768] [--width 256]
                                     [--seconds 2] [--dense-to 1000000]

outside: the table beside the compiled state, as it is trained here (runtime/table.py). dense: the same embedding and
update as a leaf of the model in compiled state, up to --dense-to rows. The step is whole and taken through the
Estimator: rows of the batch, a linear layer, its gradient, SignSGD, the guard. peak_gb: of MLX's memory.
"""

import argparse
import gc
import json
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx
import mlx.nn as nn
import numpy as np

from benchmarks.step_mlx import Batches, advance
from benchmarks.turns import timed
from optimizers.sign_sgd import SignSGD
from runtime.device import describe, select
from runtime.errors import UsageError
from runtime.op import Batch, Objective, ObjectiveOp
from runtime.table import Table
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp


class Rows(Batches):
    """A pipeline that goes round 16 batches of row numbers."""

    def __init__(self, count: int, batch: int):
        rng = np.random.default_rng(0)
        self.own = [{"puzzle": rng.integers(0, count, batch).astype(np.int32)} for _ in range(16)]

    def batches(self, mode: str, start: int):
        """An endless iterator."""
        while True:
            yield from self.own


class Embedding(nn.Module):
    """A linear layer over rows of an embedding that is a table, or for dense a leaf."""

    def __init__(self, count: int, width: int, dense: bool):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.table = None if dense else Table(count, width)
        if dense:
            self.embedding = mx.zeros((count, width))


class Fit(Objective):
    """The linear layer's outputs are to be 1."""

    identifier = "puzzle"

    def __call__(self, model: Embedding, batch: Batch, ctx) -> tuple[mx.array, Batch]:
        """The mean squared error."""
        rows = batch["rows"] if "rows" in batch else model.embedding[batch["puzzle"]]
        return (model.linear(rows) - 1).square().mean(), {}


def trainer(count: int, batch: int, dense: bool, width: int, decay: float = 0.1) -> tuple[Embedding, Estimator]:
    """The model of one size and what trains it."""
    mx.random.seed(0)
    model = Embedding(count, width, dense)
    rows = {"optimizer": partial(SignSGD, weight_decay=decay), "learning_rate": 1e-3}
    update = UpdateOp(model, "loss", "adam", 1e-3, table=None if dense else rows,
                      groups=[{"match": "embedding", **rows}] if dense else [])  # fmt: skip
    network = Network([ObjectiveOp(model, Fit()), update])
    return model, Estimator(Rows(count, batch), network, epochs=None, max_steps=0, eval_every=None)


def measure(count: int, batch: int, dense: bool, given: argparse.Namespace) -> dict:
    """The line of one size."""
    gc.collect()  # the table of the line before
    mx.clear_cache()
    mx.reset_peak_memory()
    turn = partial(advance, trainer(count, batch, dense, given.width)[1])
    turn(3)
    steps = max(3, round(0.1 / turn(3)))
    found = timed(lambda: turn(steps), given.seconds, steps)
    return {"benchmark": "embedding_table", "variant": "dense" if dense else "outside", "rows": count,
            "width": given.width, "batch": batch, **found, "peak_gb": round(mx.get_peak_memory() / 1e9, 3),
            "table_gb": round(count * given.width * 4e-9, 3), **describe()}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Prints the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 768])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--dense-to", type=int, default=1_000_000)
    given = parser.parse_args(arguments)
    try:
        select(given.device)
    except UsageError as error:
        parser.error(str(error))
    for batch in given.batches:
        for count in given.counts:
            for dense in (False, True) if count <= given.dense_to else (False,):
                print(json.dumps(measure(count, batch, dense, given)), flush=True)


if __name__ == "__main__":
    main()
