"""What ARC is worth on tasks that its network never saw: final evaluation losses from good and bad first rates.

python benchmarks/arc.py [tasks=2] [seeds=4] [weights=PATH]

Prints a JSON line for each task, optimizer, first rate and schedule, then means over the tasks of a family. "ratio" is
the geometric mean over seeds of the final evaluation loss over that of the constant good rate; a run that diverged
counts with its loss before the first step. The good rate is the best constant one of nine, half a decade apart. All
have the same weights and batches, 12 cycles of 48 steps with 4 evaluations; rates change between cycles only: the
cosine falls in 12 stairs, and ReduceLROnPlateau waits 2 cycles and takes a tenth.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in benchmarks/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import numpy as np

from dataloaders.shapes import KINDS, Shapes
from dataloaders.toy2d import EightGaussians, Moons
from optimizers import arc
from scripts.arc_runs import JUDGED, USUAL, Runs, Task, task, windows

CYCLES, STEPS, EVALUATIONS, BATCH = 12, 48, 4, 32
SCHEDULES = ("constant", "cosine", "plateau", "arc", "arc without evaluation")
STARTS = (1.0, 0.1, 10.0)  # first rates over the good one


def shapes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Grey images of shapes, (N, 64), and kinds (N,)."""
    data = Shapes(1500 + JUDGED, 8, int(rng.integers(2**31))).take(np.arange(1500 + JUDGED), rng)
    return data["x"].mean(-1).reshape(-1, 64) + 0.1 * rng.standard_normal((1500 + JUDGED, 64)), data["label"]


def kinds(rng: np.random.Generator) -> Task:
    """Which shape an image shows, by a small convolutional network."""
    x, label = shapes(rng)
    return task(windows(x), np.eye(len(KINDS))[label], 1500, [9, 8, 32, len(KINDS)], patches=True)


def autoencoder(rng: np.random.Generator) -> Task:
    """Images of shapes through eight numbers."""
    x, _ = shapes(rng)
    return task(x, x, 1500, [64, 48, 8, 48, 64], regression=True)


def flow(rng: np.random.Generator) -> Task:
    """Flow matching of points in the plane: the velocity by place and time, most of whose loss is noise."""
    source = (EightGaussians, Moons)[int(rng.integers(2))]()
    count = 4000 + JUDGED
    data, noise, time = source.draw(count, rng)["x"] / 2, rng.standard_normal((count, 2)), rng.random((count, 1))
    x = np.concatenate([(1 - time) * noise + time * data, time], 1)
    return task(x, data - noise, 4000, [3, 48, 48, 2], regression=True)


FAMILIES = (kinds, autoencoder, flow)


class Plateau:
    """ReduceLROnPlateau's rule (traces/adapt/reduce_lr_on_plateau.py) cycle by cycle."""

    def __init__(self):
        self.best, self.wait = np.inf, 0

    def multiplier(self, loss: float) -> float:
        """A tenth after two cycles without an improvement."""
        if loss < self.best:
            self.best, self.wait = loss, 0
            return 1.0
        self.wait += 1
        if self.wait < 2:
            return 1.0
        self.wait = 0
        return 0.1


def final(runs: Runs, first: np.ndarray, schedules: list[str], seeds: int, rng: np.random.Generator) -> np.ndarray:
    """The last evaluation losses of runs with first rates (R,) and schedules; R is a multiple of the seeds' number."""
    controllers = [Plateau() if name == "plateau" else arc.ARC() for name in schedules]
    start = np.array(runs.losses(runs.weights, *runs.held))
    rates, ends = first.copy(), start
    for cycle in range(CYCLES):
        stair = (1 + np.cos(np.pi * (cycle + 0.5) / CYCLES)) / 2
        now = np.array(
            [rate * stair if name == "cosine" else rate for rate, name in zip(rates, schedules, strict=True)]
        )
        rows = rng.integers(len(runs.x), size=(STEPS, seeds, BATCH))
        train, evals = runs.cycle(now, np.repeat(rows, len(first) // seeds, 1), EVALUATIONS)
        ends = np.where(np.isfinite(evals[:, -1]), evals[:, -1], np.maximum(start, ends))
        for run, (name, controller) in enumerate(zip(schedules, controllers, strict=True)):
            if isinstance(controller, Plateau):
                rates[run] *= controller.multiplier(evals[run, -1])
            elif name.startswith("arc"):
                for step, loss in enumerate(train[run]):
                    controller.train_loss(float(loss), step / STEPS)
                for loss in evals[run] if name == "arc" else ():
                    controller.eval_loss(float(loss))
                rates[run] *= controller.multiplier(float(rates[run]))
    return np.where(np.isfinite(evals[:, -1]), evals[:, -1], start)


def good_rate(given: Task, optimizer: str, seed: list[int]) -> float:
    """The best constant rate of nine."""
    rng, rates = np.random.default_rng(seed), USUAL[optimizer] * 10 ** np.arange(-2.0, 2.1, 0.5)
    runs = Runs(given, optimizer, 2 * len(rates), rng, alike=len(rates))
    losses = final(runs, np.tile(rates, 2), ["constant"] * (2 * len(rates)), 2, rng)
    return float(rates[np.log(losses).reshape(2, -1).mean(0).argmin()])


def compare(family: Callable[[np.random.Generator], Task], number: int, optimizer: str, seeds: int) -> list[dict]:
    """Ratios of one task by first rate and schedule."""
    given = family(np.random.default_rng([1, number]))
    good = good_rate(given, optimizer, [2, number])
    pairs = [(start, name) for start in STARTS for name in SCHEDULES]
    rng = np.random.default_rng([3, number])
    runs = Runs(given, optimizer, seeds * len(pairs), rng, alike=len(pairs))
    first = np.tile([good * start for start, _ in pairs], seeds)
    logs = np.log(final(runs, first, [name for _, name in pairs] * seeds, seeds, rng)).reshape(seeds, -1)
    ratios = np.exp(logs - logs[:, :1])  # the first pair is the constant good rate
    return [{"family": family.__name__, "task": number, "optimizer": optimizer, "good rate": good, "first over good": s,
             "schedule": name, "ratio": round(float(np.exp(np.log(ratios[:, i]).mean())), 4)}
            for i, (s, name) in enumerate(pairs)]  # fmt: skip


def main(tasks: int = 2, seeds: int = 4, weights: str = "") -> None:
    """Prints everything."""
    if weights:
        arc.WEIGHTS = Path(weights)
    rows = []
    for family in FAMILIES:
        for number in range(tasks):
            for optimizer in USUAL:
                rows += compare(family, number, optimizer, seeds)
                print("\n".join(json.dumps(row) for row in rows[-len(STARTS) * len(SCHEDULES) :]), flush=True)
    for start in STARTS:
        for name in SCHEDULES:
            own = [row for row in rows if (row["first over good"], row["schedule"]) == (start, name)]
            means = {f.__name__: np.exp(np.mean([np.log(r["ratio"]) for r in own if r["family"] == f.__name__]))
                     for f in FAMILIES}  # fmt: skip
            means["all"] = np.exp(np.mean([np.log(row["ratio"]) for row in own]))
            print(
                json.dumps(
                    {"first over good": start, "schedule": name} | {k: round(float(v), 4) for k, v in means.items()}
                )
            )


if __name__ == "__main__":
    given = dict(text.split("=", 1) for text in sys.argv[1:])
    main(int(given.get("tasks", 2)), int(given.get("seeds", 4)), given.get("weights", ""))
