"""Distances between two sets of points (n, d), in float64, and the evaluator that reports them beside their floor."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from evaluation.evaluator import TwoSample, check_metrics, counted
from runtime.errors import UsageError

BLOCK = 512  # rows of a distance matrix at a time: 512 x 10k float64 is 41 MB


def centred(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (n, d), less their joint mean (distances do not see it; the products below lose digits to it)."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UsageError(f"two sets of points (n, d) with the same d are needed, got shapes {x.shape} and {y.shape}.")
    centre = (x.mean(0, dtype=np.float64) + y.mean(0, dtype=np.float64)) / 2
    return x - centre, y - centre


def squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
    """Squared Euclidean distances between rows of x (n, d) and y (m, d), a block of rows (<= 512, m) at a time."""
    y_norms = np.einsum("nd,nd->n", y, y)
    for start in range(0, len(x), BLOCK):
        rows = x[start : start + BLOCK]
        block = rows @ (-2 * y.T)
        block += y_norms
        block += np.einsum("nd,nd->n", rows, rows)[:, None]
        yield np.maximum(block, 0, out=block)


def _mean_distance(x: np.ndarray, y: np.ndarray) -> float:
    return sum(np.sqrt(block, out=block).sum() for block in squared_distances(x, y)) / (len(x) * len(y))


def _mean_distance_within(x: np.ndarray) -> float:
    total = 0.0
    for start in range(0, len(x), BLOCK):  # each block of rows against itself and those after it, which count twice
        (block,) = squared_distances(x[start : start + BLOCK], x[start:])
        np.sqrt(block, out=block)
        total += 2 * block.sum() - block[:, : len(block)].sum()
    return total / len(x) ** 2


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """2 E|x-y| - E|x-x'| - E|y-y'| as a V-statistic (pairs of a point with itself count), without a root.

    Szekely and Rizzo, Energy statistics, 2013, equation 2.1. x (n, d), y (m, d).
    """
    x, y = centred(x, y)
    return float(2 * _mean_distance(x, y) - _mean_distance_within(x) - _mean_distance_within(y))


def sliced_wasserstein2(x: np.ndarray, y: np.ndarray, projections: int, rng: np.random.Generator) -> float:
    """Root of the mean squared 2-Wasserstein distance over random directions; x and y both (n, d)."""
    if len(x) != len(y):
        raise UsageError(f"sliced_wasserstein2 needs two sets of equal size, got {len(x)} and {len(y)} points.")
    x, y = centred(x, y)
    directions = rng.standard_normal((x.shape[1], projections))
    directions /= np.linalg.norm(directions, axis=0)
    gaps = np.sort(x @ directions, axis=0) - np.sort(y @ directions, axis=0)
    return float(np.sqrt(np.mean(gaps**2)))


class Transport(NamedTuple):
    """An exact transport: the mean squared distance moved, and its root, the 2-Wasserstein distance."""

    squared_cost: float
    distance: float


def wasserstein2(x: np.ndarray, y: np.ndarray) -> Transport:
    """Exact optimal transport with squared Euclidean cost (POT's network simplex); x (n, d), y (m, d).

    On one CPU core 2k against 2k points takes about a second, 10k against 10k about a minute and 2 GB.
    """
    import ot

    x, y = centred(x, y)
    cost = np.concatenate(list(squared_distances(x, y)))
    _, log = ot.emd(ot.unif(len(x)), ot.unif(len(y)), cost, numItermax=10_000_000, log=True)
    if log["warning"]:
        raise UsageError(f"exact transport of {len(x)} against {len(y)} points failed: {log['warning']}")
    return Transport(float(log["cost"]), float(np.sqrt(log["cost"])))


def mmd(x: np.ndarray, y: np.ndarray, bandwidths: Sequence[float]) -> float:
    """Unbiased squared maximum mean discrepancy under the mean of Gaussian kernels exp(-|x-y|^2 / (2 b^2)).

    Gretton et al., A kernel two-sample test, JMLR 2012, equation 3; it may be slightly negative. x (n, d), y (m, d);
    bandwidths b in the unit of the points.
    """
    x, y = centred(x, y)

    def total(a: np.ndarray, b: np.ndarray) -> float:
        # Single precision for the exponentials only (their rounding errors average out): three times as fast.
        blocks = (block.astype(np.float32) for block in squared_distances(a, b))
        kernels = (np.exp(block / np.float32(-2 * width**2)) for block in blocks for width in bandwidths)
        return sum(kernel.sum(dtype=np.float64) for kernel in kernels) / len(bandwidths)

    n, m = len(x), len(y)
    # A point's kernel with itself is 1 whatever the bandwidth: the unbiased form leaves those n (m) terms out.
    return float((total(x, x) - n) / (n * (n - 1)) + (total(y, y) - m) / (m * (m - 1)) - 2 * total(x, y) / (n * m))


METRICS = ("energy_distance", "sliced_w2", "w2", "emd", "mmd2_rbf")


class PointDistances(TwoSample):
    """Distances between samples and data, rows flattened to points, reported as "<metric>_<points a side>".

    metrics: "energy_distance" (no root), "sliced_w2" (root), "w2" (exact transport, root), "emd" (exact
    transport on squared distances, no root) and "mmd2_rbf". exact_count: points a side for the two exact ones (a
    minute for 10,000). projections: directions of sliced_w2. bandwidths: of mmd2_rbf, in the data's unit. The rest as
    in TwoSample.
    """

    def __init__(
        self,
        count: int = 10_000,
        floor_pairs: int = 5,
        exact_count: int = 2_000,
        metrics: list | tuple = ("energy_distance", "sliced_w2", "w2"),
        projections: int = 128,
        bandwidths: list | tuple = (0.25, 0.5, 1.0, 2.0),
        steps: list | tuple = (),
        solvers: dict | None = None,
        batch: int = 10_000,
        seed: int = 0,
    ):
        super().__init__(count, floor_pairs, seed, solvers, batch, steps)
        check_metrics(metrics, METRICS)
        self.exact_count, self.metrics = exact_count, tuple(metrics)
        self.projections, self.bandwidths = projections, tuple(bandwidths)

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n, ...) as points (n, d)."""
        return rows.reshape(len(rows), -1)

    def names(self) -> list[str]:
        """The chosen metrics with the points a side, which are fewer for the exact ones."""
        exact = min(self.exact_count, self.count)
        return [counted(metric, exact if metric in ("w2", "emd") else self.count) for metric in self.metrics]

    def measure(self, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """The chosen metrics of x against y, both (n, d)."""
        scores: dict[str, float] = {}
        if {"w2", "emd"} & set(self.metrics):
            exact = wasserstein2(x[: self.exact_count], y[: self.exact_count])
            scores |= {"w2": exact.distance, "emd": exact.squared_cost}
        if "energy_distance" in self.metrics:
            scores["energy_distance"] = energy_distance(x, y)
        if "sliced_w2" in self.metrics:
            scores["sliced_w2"] = sliced_wasserstein2(x, y, self.projections, np.random.default_rng(self.seed))
        if "mmd2_rbf" in self.metrics:
            scores["mmd2_rbf"] = mmd(x, y, self.bandwidths)
        return {name: scores[metric] for name, metric in zip(self.names(), self.metrics, strict=True)}
