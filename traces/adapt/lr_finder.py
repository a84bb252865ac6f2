"""The learning-rate range test: one short run with a rising rate (Smith, arXiv 1506.01186, section 3.3)."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError
from traces.trace import Trace
from training.data import Data, plain

PATIENCE = 3  # losses in a row that must be too high to end the run
SKIPPED = 10  # updates skipped in a row that end it: a few are usual in fp16, until the loss's scale is found

FALL = 2.0  # standard deviations of the loss that its smoothed curve must fall by to mean anything


class Suggestion(NamedTuple):
    """What a range test says: the rate of steepest descent and that of the lowest loss, both smoothed."""

    steepest: float
    lowest: float

    @property
    def rate(self) -> float:
        """The larger of the rate of steepest descent and a tenth of that of the lowest loss."""
        return max(self.steepest, self.lowest / 10)


class LRFinder(Trace):
    """Raises the rate from `lowest` to `highest` by the same factor every step, and suggests one.

    A loss belongs to the rate of the update before it, the first that it can show. Two rules are in use: the rate at
    which the smoothed loss falls fastest over the logarithm of the rate, and a tenth of the rate where it is lowest.
    The suggestion is the larger, since the first depends on the number of steps: along a curvature L of the loss it
    gives ln(growth of the rate a step) / 2L, where rates up to 2 / L are stable. The run ends at divergence: `PATIENCE`
    losses in a row above both `diverged` times the lowest and the first plus as much as it had fallen, or one that is
    not finite.

    All updates rise together and keep the ratios of their groups' rates; what is told is the first update's last group,
    for its loss. width: of the smoothing, in decades of the rate. picture(rates, losses, smooth, suggestion, path)
    draws. Writes lr_find.csv and lr_find.png into the run's folder. Raises UsageError for rates out of order and for a
    run without an end or too short.
    """

    def __init__(self, lowest: float = 1e-7, highest: float = 10.0, diverged: float = 4.0, width: float = 0.15,
                 picture: Callable[..., Any] | None = None):  # fmt: skip
        super().__init__(mode="train")
        if not 0 < lowest < highest:
            raise UsageError(f"LRFinder needs 0 < lowest < highest, got lowest={lowest}, highest={highest}.")
        if width <= 0 or diverged <= 1:
            raise UsageError(f"LRFinder needs width > 0 and diverged > 1, got width={width}, diverged={diverged}.")
        self.lowest, self.highest, self.diverged, self.width, self.picture = lowest, highest, diverged, width, picture
        self.growth, self.losses = 1.0, []

    def on_begin(self, data: Data) -> None:
        """Installs the rising rate."""
        estimator, steps = self.estimator, self.estimator.total_steps
        if estimator.world.many:
            raise UsageError(f"a range test needs one process, got {estimator.world.size}; distributed.processes=1.")
        if steps is None or steps < 10:
            raise UsageError(f"LRFinder needs max_steps of at least 10, got {steps}.")
        if estimator.step:
            raise UsageError(f"a range test starts at step 0, got a run at step {estimator.step}.")
        self.growth = (self.highest / self.lowest) ** (1 / (steps - 1))
        base = estimator.network.updates[0].optimized[0][-1].base
        if base <= 0:
            raise UsageError(f"LRFinder needs an update with a learning rate above 0, got {base}.")

        def schedule(step: mx.array) -> mx.array:
            return mx.exp(step.astype(mx.float32) * math.log(self.growth)) * (self.lowest / base)

        for update in estimator.network.updates:
            rows = [] if update.rows is None else [update.rows]
            for group in (group for groups in (*update.optimized, rows) for group in groups):
                group.schedule = schedule

    def on_batch_end(self, data: Data) -> None:
        """Keeps the loss; stops where the training has diverged."""
        self.losses.append(float(plain(data[self.estimator.network.updates[0].loss_name])))
        last = self.losses[-PATIENCE:]
        if not math.isfinite(last[-1]) or plain(data["streak"]) >= SKIPPED:
            self.estimator.stop("the loss or a gradient is not finite")
        elif len(self.losses) > PATIENCE and min(last) > self.limit():
            self.estimator.stop("the loss has diverged")

    def limit(self) -> float:
        """The loss above which the training has diverged."""
        losses = [loss for loss in self.losses if math.isfinite(loss)]
        first, best = losses[0], min(losses)
        return max(best + (self.diverged - 1) * abs(best), 2 * first - best)

    def on_end(self, data: Data) -> None:
        """Writes the curve, draws it and says what it suggests."""
        kept = [(self.lowest * self.growth**i, loss) for i, loss in enumerate(self.losses[1:]) if math.isfinite(loss)]
        if len(kept) < 5:
            why = self.estimator.summary.reason
            raise UsageError(f"the range test ended after {self.estimator.step} steps, {why}: it needs a lower "
                             f"traces.find.lowest than {self.lowest:g}.")  # fmt: skip
        rates, losses = np.array(kept).T
        found, smooth = suggested(rates, np.minimum(losses, self.limit()), self.width)
        folder: Path = self.estimator.workspace.folder
        with (folder / "lr_find.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("learning_rate", "loss", "smooth"), *zip(rates, losses, smooth, strict=True)])
        if found is None:
            print("no suggestion: the loss fell by no more than its noise; try a larger batch or more steps.")
        else:
            self.estimator.log(**{f"lr_find/{name}": value for name, value in found._asdict().items()},
                               **{"lr_find/suggested": found.rate})  # fmt: skip
            print(
                f"suggested learning rate: {found.rate:.2g}, the larger of {found.steepest:.2g}, where the smoothed "
                f"loss falls fastest, and a tenth of {found.lowest:.2g}, where it is lowest."
            )
        if self.picture is not None:
            self.picture(rates, losses, smooth, found, folder / "lr_find.png")
            self.estimator.log(**{"samples/lr_find": "lr_find.png"})


def smoothed(x: np.ndarray, y: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Means of y (N,) with Gaussian weights of that width about each x (N,), and slopes (N,) of lines fitted so."""
    away = x[None, :] - x[:, None]
    weights = np.exp(-0.5 * (away / width) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    away -= (weights * away).sum(axis=1, keepdims=True)
    spread = np.maximum((weights * away**2).sum(axis=1), 1e-30)
    return weights @ y, (weights * away) @ y / spread


def suggested(rates: np.ndarray, losses: np.ndarray, width: float) -> tuple[Suggestion | None, np.ndarray]:
    """What losses (N,) at rates (N,) suggest, None where they fall by no more than their noise; smoothed losses (N,).

    The lowest is the first rate whose loss is within half of the noise of the minimum. The steepest lies before it,
    where between a tenth and nine tenths of the fall are done: elsewhere a slope is noise.
    """
    smooth, slopes = smoothed(np.log10(rates), losses, width)
    noise = np.median(np.abs(np.diff(losses, 2))) / (math.sqrt(6) * 0.6745)  # the deviation of independent normal noise
    lowest = int((smooth <= smooth.min() + noise / 2).argmax())
    before = smooth[: lowest + 1]
    fall = np.ptp(before)
    if fall <= FALL * noise or fall <= 1e-6 * abs(smooth[0]):
        return None, smooth
    under_way = np.abs((before - before.min()) / fall - 0.5) <= 0.4
    steepest = np.where(under_way, slopes[: lowest + 1], 0).argmin()
    return Suggestion(float(rates[steepest]), float(rates[lowest])), smooth
