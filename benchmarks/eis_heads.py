"""The two ways to a joint distribution of circuits, autoregressive heads and a flow, on the same held-out spectra.

python benchmarks/eis_heads.py CHECKPOINT [CHECKPOINT ...] [--count 500] [--draws 200] [--steps 2,4,8] [--seconds 3]

Checkpoints of experiment=eis_series and eis_series_flow (or of others with these models); the spectra are of the first
one's held-out data. One JSON line for each predictor, for each number of steps (Heun's) of a flow. nll: mean of
-ln p(what is unknown) in nats of cell widths, a flow's by Runge-Kutta steps (on a small network four times as many
changed the mean by .0003), the same in all its lines; nll_unknown, nll_known: rows of which nothing, something is
known. coverage: share of unknown parameters inside the central intervals of the draws; rank_gap: the largest distance
of the ranks' distribution from the uniform one (Kolmogorov). batch_ms, draws_per_s: --draws circuits for each of 64
spectra; latency_ms: one spectrum to one circuit.
"""

import argparse
import json
import math
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import runtime.blas  # noqa: E402, F401  before mlx

# isort: split
import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.turns import repeated  # noqa: E402
from evaluation.eis_calibration import coverage, ranks  # noqa: E402
from losses.eis_flow import CircuitFlow  # noqa: E402
from runtime.device import describe, select  # noqa: E402
from runtime.op import Batch  # noqa: E402
from runtime.run import Run  # noqa: E402
from runtime.trees import count_parameters  # noqa: E402
from solvers.heun import Heun  # noqa: E402
from solvers.likelihood import log_likelihood  # noqa: E402
from solvers.rk4 import RK4  # noqa: E402
from training.experiment import load_run  # noqa: E402

EXACT = RK4(24, grid="cosine")  # of a flow's density
SIZE = 64  # spectra at once


class Heads:
    """models.eis_predictor's: one pass of the network for a density, five choices for a circuit."""

    evaluations = 1

    def __init__(self, run: Run):
        self.model: Any = run.model

    def log_density(self, batch: Batch) -> mx.array:
        """ln p(unknown target | the rest), (B,) in nats."""
        context = self.model.encode(batch["x"], batch["known"], batch["known_mask"])
        cell, inside = self.model.log_density(context, batch["target"])
        return ((cell + inside) * (1 - batch["known_mask"])).sum(axis=1)

    def draw(self, batch: Batch, count: int, key: mx.array) -> mx.array:
        """Places (B, count, 5)."""
        context = self.model.encode(batch["x"], batch["known"], batch["known_mask"])
        return self.model.sample(context, batch["known"], batch["known_mask"], count, key)[0]


class Flow:
    """models.eis_flow's, solved in so many steps of Heun's method, two evaluations each."""

    def __init__(self, run: Run, steps: int):
        objective: Any = run.objective
        self.model, self.objective, self.solver = run.model, objective, Heun(steps)
        self.evaluations = 2 * steps

    def log_density(self, batch: Batch) -> mx.array:
        """ln p(unknown target | the rest), (B,) in nats, as exact as EXACT."""
        return self.objective.log_density(self.model, batch, partial(log_likelihood, solver=EXACT))

    def draw(self, batch: Batch, count: int, key: mx.array) -> mx.array:
        """Places (B, count, 5)."""
        return self.objective.draw(
            self.model, batch, mx.random.normal((len(batch["x"]), count, 5), key=key), self.solver
        )


def predictors(run: Run, steps: list[int]) -> list[Heads | Flow]:
    """What a checkpoint holds, a flow once for each number of steps."""
    if isinstance(run.objective, CircuitFlow):
        return [Flow(run, number) for number in steps]
    return [Heads(run)]


def parts(batch: Batch) -> list[Batch]:
    """SIZE rows at a time."""
    return [{name: value[i : i + SIZE] for name, value in batch.items()} for i in range(0, len(batch["x"]), SIZE)]


def likelihoods(predictor: Heads | Flow, batch: Batch) -> dict[str, float]:
    """nll of all rows, and of those of which nothing and something is known (nan where there are none)."""
    nll = -np.concatenate([np.array(predictor.log_density(part)) for part in parts(batch)])
    known = np.array(batch["known_mask"]).any(axis=1)
    chosen = {"nll": nll, "nll_unknown": nll[~known], "nll_known": nll[known]}
    return {name: float(rows.mean()) if len(rows) else math.nan for name, rows in chosen.items()}


def honesty(places: np.ndarray, batch: Batch) -> dict[str, float]:
    """coverage50, coverage90 and rank_gap of draws (N, S, 5), over all unknown parameters alike."""
    unknown = np.array(batch["known_mask"]) == 0
    draws, truths = places.swapaxes(1, 2)[unknown], np.array(batch["target"])[unknown]
    found = {f"coverage{100 * level:.0f}": float(coverage(draws, truths, level)) for level in (0.5, 0.9)}
    order = np.sort(ranks(draws, truths))
    uniform = np.arange(len(order) + 1) / len(order)
    return found | {"rank_gap": float(max((uniform[1:] - order).max(), (order - uniform[:-1]).max()))}


def speeds(predictor: Heads | Flow, batch: Batch, draws: int, seconds: float) -> dict[str, float]:
    """Medians of calls in so many seconds, and processor time a call: on a shared machine that alone compares."""
    many, one = parts(batch)[0], {name: value[:1] for name, value in batch.items()}
    found = {}
    for name, rows, count in (("batch", many, draws), ("latency", one, 1)):
        work = partial(drawn, predictor, rows, count)
        work()  # kernels are compiled
        began = time.process_time()
        times = repeated(work, seconds)
        found[f"{name}_ms"] = round(median(times), 3)
        found[f"{name}_processor_ms"] = round((time.process_time() - began) / len(times) * 1e3, 3)
    return found | {"draws_per_s": round(len(many["x"]) * draws / found["batch_ms"] * 1e3)}


def drawn(predictor: Heads | Flow, batch: Batch, count: int) -> None:
    """Draws and waits."""
    mx.eval(predictor.draw(batch, count, mx.random.key(1)))


def main() -> None:
    """Loads the checkpoints and prints a line for each predictor in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--steps", default="2,4,8")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    select(given.device)
    runs = [load_run(path) for path in given.checkpoints]
    rows = runs[0].pipeline.draw("eval", given.count, np.random.default_rng(0))
    batch = {name: mx.array(value) for name, value in rows.items()}
    for path, run in zip(given.checkpoints, runs, strict=True):
        found: dict[str, float] = {}
        for predictor in predictors(run, [int(text) for text in given.steps.split(",")]):
            found = found or likelihoods(predictor, batch)
            places = [
                np.array(predictor.draw(part, given.draws, mx.random.key(i))) for i, part in enumerate(parts(batch))
            ]
            scores = found | honesty(np.concatenate(places), batch)
            line = {
                "benchmark": "eis_heads", "checkpoint": Path(path).name, "predictor": type(predictor).__name__.lower(),
                "evaluations": predictor.evaluations, "parameters": count_parameters(run.model), "steps": run.step,
                **{name: round(value, 4) for name, value in scores.items()},
                **speeds(predictor, batch, given.draws, given.seconds),
                "count": given.count, "draws": given.draws, "device": describe(),
            }  # fmt: skip
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
