"""Whether stated probabilities are honest: calibration of top guesses, coverage of intervals, ranks of the truth."""

import numpy as np

FOLDS = 10  # parts of the draws of which one says how likely what the others name is
RANKS = 10  # groups that are looked at, at least
FEW = 50  # independent draws below which parts say nothing


def calibration_error(stated: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: mean over rows of |mean stated probability - share right| of their bin.

    stated (N,) in [0, 1], right (N,) bool (or chances); bins hold equally many rows (equal-mass; Nixon et al., arXiv
    1904.01685), one each where there are no more rows than bins.
    """
    order = np.argsort(stated, kind="stable")
    gaps = np.asarray(stated, float)[order] - np.asarray(right, float)[order]
    return float(sum(abs(part.sum()) for part in np.array_split(gaps, bins)) / len(stated))


def calibration_floor(stated: np.ndarray, rng: np.random.Generator, bins: int = 15, draws: int = 200) -> float:
    """What `calibration_error` is on average where `stated` (N,) is perfectly calibrated: chance alone, above 0."""
    return float(np.mean([calibration_error(stated, rng.random(len(stated)) < stated, bins) for _ in range(draws)]))


def likeliest(
    group: np.ndarray, weights: np.ndarray, count: int, origin: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The groups (K,) that hold most of the weights (N,), K <= count, and how likely each of them is, (K,) descending.

    group (N,): numbers from 0 of weighted draws; origin (N,): the draw that each is a copy of, where some are copies.
    The largest of many uncertain shares is too large: with 200 draws of 60 equally likely groups .041 instead of .017.
    What the group of rank k among all but one of FOLDS parts of the draws holds in that part is not, but uncertain. So
    the shares are drawn together about their mean by the factor that explains those best: .022 in place of .041. Draws
    worth fewer than FEW independent ones have their plain shares.
    """
    weights = weights / weights.sum()
    size = int(group.max()) + 1
    whole = np.bincount(group, weights, size)
    best = np.argsort(-whole, kind="stable")[: max(count, RANKS)]
    shares = whole[best]
    origin = np.arange(len(group)) if origin is None else origin
    away = shares - shares.mean()
    if (np.bincount(origin, weights) ** 2).sum() * FEW > 1 or away @ away < 1e-12:
        return best[:count], shares[:count]
    parts = np.bincount(origin % FOLDS * size + group, weights, FOLDS * size).reshape(FOLDS, size)
    others = np.round(whole - parts, 12)  # rounding must not decide between equal ones: it knows the part
    named = np.argsort(-others, axis=1, kind="stable")[:, : len(best)]
    held = np.take_along_axis(parts, named, axis=1).sum(axis=0)
    factor = np.clip(away @ held / (away @ away), 0, 1)
    return best[:count], np.maximum(held.mean() + factor * away, 0)[:count]


def quantiles(samples: np.ndarray, shares: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Quantiles (Q, N, ...) at shares (Q,) of samples (N, S, ...) along S, with weights (N, S) where given."""
    if weights is None:
        return np.quantile(samples, shares, axis=1)
    samples = np.ascontiguousarray(np.moveaxis(samples, 1, -1))  # (N, ..., S): a row's samples side by side
    order = np.argsort(samples, axis=-1)
    values = np.take_along_axis(samples, order, axis=-1)
    spread = weights.reshape(len(weights), *[1] * (samples.ndim - 2), -1)
    reached = np.cumsum(np.take_along_axis(np.broadcast_to(spread, samples.shape), order, axis=-1), axis=-1)
    reached /= reached[..., -1:]
    at = np.stack([(reached < share - 1e-12).sum(axis=-1) for share in shares], axis=-1)
    found = np.take_along_axis(values, np.minimum(at, samples.shape[-1] - 1), axis=-1)
    return np.moveaxis(found, -1, 0)


def coverage(samples: np.ndarray, truths: np.ndarray, level: float, weights: np.ndarray | None = None) -> np.ndarray:
    """Share of rows whose truth (N, ...) lies in the central interval of `level` of samples (N, S, ...), (...)."""
    low, high = quantiles(samples, np.array([0.5 - level / 2, 0.5 + level / 2]), weights)
    return ((low <= truths) & (truths <= high)).mean(axis=0)


def ranks(samples: np.ndarray, truths: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The posterior's mass below the truth, in [0, 1], (N, ...) of samples (N, S, ...) and truths (N, ...).

    Uniform where the posterior is exact (simulation-based calibration, Talts et al., arXiv 1804.06788, theorem 1).
    """
    below = samples < truths[:, None]
    if weights is None:
        return below.mean(axis=1)
    return np.einsum("ns...,ns->n...", below, weights) / weights.sum(axis=1).reshape(-1, *[1] * (truths.ndim - 1))


def rank_histogram(found: np.ndarray, bins: int = 20) -> np.ndarray:
    """How many of the ranks (N, ...) in [0, 1] fall into each of `bins` equal parts, (bins, ...)."""
    place = np.minimum((found * bins).astype(int), bins - 1)
    return np.stack([(place == number).sum(axis=0) for number in range(bins)])


def chi_square(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pearson's statistic of histograms (bins, ...) against equal parts, and the chance of a larger one, (...) each."""
    from scipy.stats import chi2

    expected = histogram.sum(axis=0) / len(histogram)
    statistic = ((histogram - expected) ** 2 / expected).sum(axis=0)
    return statistic, chi2.sf(statistic, len(histogram) - 1)
