"""Nearest neighbours among features: precision and recall of samples, and whether they are copies of training data."""

from collections.abc import Sequence

import numpy as np

from evaluation.distances import centred, squared_distances
from runtime.errors import UsageError

CHUNK, SPARE = 8192, 8  # training rows at a time; candidates beyond those asked for, measured again exactly


def precision_recall(x: np.ndarray, y: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall of samples x (n, d) against data y (m, d): shares in each other's manifolds.

    A manifold is the union of balls around its points that reach to the k-th nearest other one. Kynkaanniemi et al.,
    arXiv 1904.06991, equations 1 and 2. Raises UsageError where a side has k rows or fewer.
    """
    if min(len(x), len(y)) <= k:
        raise UsageError(f"precision and recall with k={k} need {k + 1} rows a side, got {len(x)} and {len(y)}.")
    x, y = centred(x, y)
    return _covered(x, y, _radii(y, k)), _covered(y, x, _radii(x, k))


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """The squared distance from each row of x (n, d) to its k-th nearest other row, (n,)."""
    # A row is its own nearest (or a twin of it is): that one is left out by taking place k, counted from 0.
    return np.concatenate([np.partition(block, k, axis=1)[:, k] for block in squared_distances(x, x)])


def _covered(x: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> float:
    """The share of rows of x (n, d) in at least one ball of squared radius radii (m,) around centres (m, d)."""
    return sum((block <= radii).any(axis=1).sum() for block in squared_distances(x, centres)) / len(x)


def nearest(x: np.ndarray, among: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and Euclidean distances (n, k) of the k rows of `among` (m, d) nearest to each of x (n, d), in order.

    Found in float32, the final order and distances are those of float64.
    """
    if not 1 <= k <= len(among):
        raise UsageError(
            f"there are {len(among)} rows to find {k} neighbours among; from 1 to {len(among)} are needed."
        )
    centre = among[:CHUNK].mean(0, dtype=np.float64).astype(np.float32)
    x32, wanted = x.astype(np.float32) - centre, min(k + SPARE, len(among))
    index = np.empty((len(x), 0), np.int64)
    score = np.empty((len(x), 0), np.float32)
    for start in range(0, len(among), CHUNK):
        rows = among[start : start + CHUNK].astype(np.float32) - centre
        found = x32 @ (-2 * rows.T) + np.einsum("md,md->m", rows, rows)
        score = np.concatenate([score, found], axis=1)
        index = np.concatenate([index, np.broadcast_to(np.arange(start, start + len(rows)), found.shape)], axis=1)
        if score.shape[1] > wanted:
            best = np.argpartition(score, wanted - 1, axis=1)[:, :wanted]
            score, index = (np.take_along_axis(part, best, axis=1) for part in (score, index))
    exact = np.stack([
        np.linalg.norm(among[own].astype(np.float64) - row, axis=1) for own, row in zip(index, x, strict=True)
    ])  # fmt: skip
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(index, order, axis=1), np.take_along_axis(exact, order, axis=1)


def copied_share(distances: np.ndarray | Sequence, ratio: float) -> float:
    """The share of rows whose first distance is less than `ratio` times the second; distances (n, 2), rising."""
    distances = np.asarray(distances)
    return float(np.mean(distances[:, 0] < ratio * distances[:, 1]))
