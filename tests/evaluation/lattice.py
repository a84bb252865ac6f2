"""Weighted circuits held against a posterior summed over a lattice of places."""

import numpy as np
import pytest

from evaluation.eis_likelihood import Problem


def close(asked: Problem, found, places: np.ndarray, value: np.ndarray, slack: float = 0.01) -> None:
    """The circuits found are spread as e^value over the places (N, 5), by the quantiles of each free parameter."""
    probability = np.exp(value - value.max())
    probability /= probability.sum()
    for i in asked.free:
        order = np.argsort(places[:, i])
        total = np.cumsum(probability[order])
        for share in (0.05, 0.25, 0.5, 0.75, 0.95):
            at = np.searchsorted(total, share)
            own = found.weights[found.places[:, i] < places[order[at], i]].sum()
            error = np.sqrt(share * (1 - share) / (found.effective or 1))
            assert own == pytest.approx(total[at], abs=4 * error + slack), (i, share)
