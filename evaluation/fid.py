"""Distances between features of images, and the evaluator that reports them beside their floor."""

from typing import Any

import numpy as np

from evaluation.distances import energy_distance
from evaluation.evaluator import TwoSample, check_metrics, counted
from evaluation.neighbours import precision_recall
from runtime.errors import UsageError

METRICS = ("fd", "kid", "precision", "recall", "energy_distance")


def frechet_distance(mu1: np.ndarray, s1: np.ndarray, mu2: np.ndarray, s2: np.ndarray) -> float:
    """Squared 2-Wasserstein distance of two Gaussians: means (d,), covariances (d, d), in float64.

    |mu1 - mu2|^2 + tr(s1 + s2 - 2 (s1 s2)^(1/2)), Heusel et al., arXiv 1706.08500, equation 6. The trace of the root
    is the sum of the roots of the eigenvalues of s1 s2, which are real and not negative but for rounding.
    """
    mu1, s1, mu2, s2 = (np.asarray(part, np.float64) for part in (mu1, s1, mu2, s2))
    roots = np.sqrt(np.maximum(np.linalg.eigvals(s1 @ s2).real, 0))
    return float(((mu1 - mu2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * roots.sum())


def feature_frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance of Gaussians fitted to features x (n, d) and y (m, d)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return frechet_distance(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))


def kernel_distance(x: np.ndarray, y: np.ndarray, subsets: int, subset_size: int, rng: np.random.Generator) -> float:
    """Mean over random subsets of the unbiased squared MMD with the kernel (a.b / d + 1)^3; may be slightly negative.

    Binkowski et al., arXiv 1801.01401, section 4 (KID). x (n, d), y (m, d); a subset has at most n (m) rows.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    size = min(subset_size, len(x), len(y))
    if size < 2:
        raise UsageError(f"kernel_distance needs at least 2 rows a side, got {len(x)} and {len(y)}.")
    total = 0.0
    for _ in range(subsets):
        a, b = x[rng.permutation(len(x))[:size]], y[rng.permutation(len(y))[:size]]
        within = sum(_kernel(rows, rows).sum() - _kernel_diagonal(rows).sum() for rows in (a, b)) / (size * (size - 1))
        total += within - 2 * _kernel(a, b).mean()
    return float(total / subsets)


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _kernel_diagonal(a: np.ndarray) -> np.ndarray:
    return (np.einsum("nd,nd->n", a, a) / a.shape[1] + 1) ** 3


class Pixels:
    """An image's own pixel values as its features: (n, H, W, C) -> (n, H W C); for images too small for a network."""

    name = "pixels"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features (n, H W C)."""
        return images.reshape(len(images), -1)


class FeatureDistance(TwoSample):
    """Distances between features of sampled images and of data, reported as "<metric>_<features>_<count>".

    metrics: "fd" (Frechet; "fid" where the features are a FID's), "kid", "precision" and "recall" (improved ones, of
    k=neighbours) and "energy_distance". Both sides get `count` images in [-1, 1] (n, H, W, C); the Frechet distance is
    biased by count: compare it with its floor, and only at equal counts. features: a callable (n, H, W, C) -> (n, d)
    with a `name`. subsets, subset_size: of kid. batch: images sampled at once. cache: keep the data's features and
    floors on disk, see evaluation.statistics. The rest as in TwoSample.
    """

    def __init__(
        self,
        features,
        count: int = 5_000,
        metrics: list | tuple = ("fd", "kid"),
        floor_pairs: int = 1,
        subsets: int = 100,
        subset_size: int = 1_000,
        neighbours: int = 3,
        cache: bool = True,
        steps: list | tuple = (),
        solvers: dict | None = None,
        batch: int = 500,
        seed: int = 0,
    ):
        super().__init__(count, floor_pairs, seed, solvers, batch, steps)
        check_metrics(metrics, METRICS)
        self.network, self.metrics, self.cache = features, tuple(metrics), cache
        self.subsets, self.subset_size, self.neighbours = subsets, subset_size, neighbours

    def check(self, pipeline) -> None:
        """Raises UsageError where the data is no images, or too short."""
        if len(pipeline.shape) != 3:
            raise UsageError(f"FeatureDistance compares images (H, W, C), but the data has shape {pipeline.shape}.")
        super().check(pipeline)

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Features (n, d) of images (n, H, W, C)."""
        return self.network(rows)

    def names(self) -> list[str]:
        """The chosen metrics with the name of the features and the images a side."""
        frechet = getattr(self.network, "frechet", "fd")
        shown = [frechet if metric == "fd" else metric for metric in self.metrics]
        return [counted(f"{metric}_{self.network.name}", self.count) for metric in shown]

    def method(self) -> dict[str, Any] | None:
        """Features, their weights where they say which, metrics and their settings."""
        if not self.cache:
            return None
        network = self.network.name, getattr(self.network, "version", "")
        return {"features": network, "metrics": self.metrics, "kid": (self.subsets, self.subset_size),
                "neighbours": self.neighbours}  # fmt: skip

    def measure(self, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """The chosen metrics of features x against y, both (n, d)."""
        rng = np.random.default_rng(self.seed)
        chosen = set(self.metrics)
        scores: dict[str, float] = {}
        if "fd" in chosen:
            scores["fd"] = feature_frechet(x, y)
        if "kid" in chosen:
            scores["kid"] = kernel_distance(x, y, self.subsets, self.subset_size, rng)
        if chosen & {"precision", "recall"}:
            scores["precision"], scores["recall"] = precision_recall(x, y, self.neighbours)
        if "energy_distance" in chosen:
            scores["energy_distance"] = energy_distance(x, y)
        return {name: scores[metric] for name, metric in zip(self.names(), self.metrics, strict=True)}
