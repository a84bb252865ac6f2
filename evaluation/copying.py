"""The evaluator that tells samples from copies of training data."""

import numpy as np

from evaluation.evaluator import TwoSample, check_metrics, counted, draw_rows, reference_mode
from evaluation.fid import Pixels
from evaluation.neighbours import copied_share, nearest
from evaluation.statistics import Statistics
from runtime.errors import UsageError

METRICS = ("copied", "nearest")


class Copying(TwoSample):
    """How near samples lie to the training data, beside the same of held-out data (the floor; none without such data).

    "copied": the share of samples whose nearest training row is less than `ratio` times as far as the second nearest
    (arXiv 2310.02664, section 2). "nearest": the median distance to the nearest training row. Reported as
    "<metric>_<features>_<count>". features: a callable (n, ...) -> (n, d) with a `name` (None: the values themselves).
    train_count: rows of the training data looked through (None: all). The rest as in TwoSample.
    """

    def __init__(
        self,
        features=None,
        count: int = 1_000,
        train_count: int | None = None,
        metrics: list | tuple = METRICS,
        ratio: float = 1 / 3,
        steps: list | tuple = (),
        solvers: dict | None = None,
        batch: int = 500,
        seed: int = 0,
    ):
        super().__init__(count, 1, seed, solvers, batch, steps)
        check_metrics(metrics, METRICS)
        self.network, self.train_count, self.metrics, self.ratio = features or Pixels(), train_count, metrics, ratio

    def check(self, pipeline) -> None:
        """Raises UsageError where `train_count` is less than two rows or more than there are."""
        available = len(pipeline.sources["train"])
        if not 2 <= (self.train_count or available) <= available:
            raise UsageError(
                f"evaluation.train_count must lie in 2..{available}, the training rows, got {self.train_count}."
            )

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n, ...) as features (n, d)."""
        return self.network(rows)

    def names(self) -> list[str]:
        """The chosen metrics with the name of the features and the number of samples."""
        return [counted(f"{metric}_{self.network.name}", self.count) for metric in self.metrics]

    def measure(self, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """The chosen metrics of features x (n, d) against those of the training data, y (m, d)."""
        _, distances = nearest(x, y, 2)
        values = {"copied": copied_share(distances, self.ratio), "nearest": float(np.median(distances[:, 0]))}
        return {name: values[metric] for name, metric in zip(self.names(), self.metrics, strict=True)}

    def measure_data(self, pipeline) -> Statistics:
        """Features of the training data, and what held-out data score against it."""
        available = len(pipeline.sources["train"])
        rng = np.random.default_rng([self.seed, 2])
        train = self.features(pipeline.draw("train", self.train_count or available, rng)["x"])
        if reference_mode(pipeline, self.count) == "train":  # training rows are copies of themselves
            return train, {}
        held_out = self.features(draw_rows(pipeline, self.count, rng)["x"])
        return train, {f"{name}_floor": value for name, value in self.measure(held_out, train).items()}
