"""Re-pairs source and data points of a batch: independent, exact optimal transport, or its entropic relaxation.

Minibatch couplings of arXiv 2302.00482 and 2304.14772; NumPy, run by the loader.
"""

from typing import Literal, cast

import numpy as np

from runtime.errors import UsageError
from runtime.op import NumpyBatch

Kind = Literal["independent", "ot", "sinkhorn"]


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances, (N, ...) and (M, ...) -> (N, M) float64."""
    a, b = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (a, b))
    return np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T, 0)


class Coupling:
    """Batch op that chooses which source point each data point gets; data and labels keep their rows.

    span: so many batches are drawn together and coupled as one. regularization: of Sinkhorn, relative to the mean
    squared distance. Sinkhorn draws each data point's partner from its plan, so a source point may come twice.
    """

    def __init__(
        self,
        kind: Kind = "ot",
        span: int = 1,
        regularization: float = 0.05,
    ):
        if span < 1:
            raise UsageError(f"Coupling: span must be at least 1 batch, got {span}.")
        if kind == "sinkhorn" and regularization <= 0:
            raise UsageError(f"Coupling: regularization must be positive, got {regularization}.")
        self.kind, self.span, self.regularization = kind, span, regularization

    def __call__(self, batch: NumpyBatch, rng: np.random.Generator) -> NumpyBatch:
        """Returns the batch with "x0" (B, ...) re-paired to "x" (B, ...); standard normal where there is none."""
        x = batch["x"]
        x0 = batch["x0"] if "x0" in batch else rng.standard_normal(x.shape, dtype=np.float32)
        return {**batch, "x0": x0[self.partners(x, x0, rng)]}

    def partners(self, x: np.ndarray, x0: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The row of x0 for every row of x, (B,) int."""
        if self.kind == "independent":
            return np.arange(len(x))
        cost = squared_distances(x, x0)
        if self.kind == "ot":
            import ot  # network simplex: at 1024 pairs in 2-D a fifth of linear_sum_assignment's time

            return ot.emd([], [], cost).argmax(axis=1)
        plan = self.sinkhorn(cost)
        upto = np.cumsum(plan, axis=1)
        drawn = rng.random((len(x), 1)) * upto[:, -1:]
        return (upto < drawn).sum(axis=1).clip(max=len(x0) - 1)

    def sinkhorn(self, cost: np.ndarray) -> np.ndarray:
        """The entropic plan (B, B) between uniform weights, its margins right to about 1e-3 of a weight."""
        import ot

        count = len(cost)
        scaled = cost / max(cost.mean(), np.finfo(np.float64).tiny)
        # exp(-cost / regularization) underflows past 700; logarithms do not, and are ten times slower
        method = "sinkhorn" if scaled.max() < 300 * self.regularization else "sinkhorn_log"
        plan = ot.sinkhorn(
            [], [], scaled, self.regularization, method, numItermax=500, stopThr=1e-3 / count**0.5, warn=False
        )
        return cast(np.ndarray, plan)  # with log=True it would be a pair
