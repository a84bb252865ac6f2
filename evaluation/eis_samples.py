"""Posteriors given as drawn circuits, off the grid as well: their cells, intervals, ranks and invariants."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np

from domains.eis import (
    ENDS,
    NAMES,
    POINTS,
    RS_SPAN,
    SWAP,
    canonical,
    canonical_indices,
    cells_of,
    from_places,
    invariants,
)
from evaluation.eis_calibration import (
    calibration_error,
    calibration_floor,
    chi_square,
    coverage,
    likeliest,
    quantiles,
    rank_histogram,
    ranks,
)
from evaluation.eis_likelihood import Problem
from evaluation.eis_methods import BEST, Observed, invariant_errors, reconstructed
from evaluation.eis_oracle import flat
from evaluation.eis_posterior import infer, weighed
from evaluation.eis_ranking import TOP, hits

NEAR = 0.1  # cells about the truth
HALF = np.array([0.5])


def contexts(model: Any, x: np.ndarray, size: int) -> Iterator[tuple[slice, mx.array]]:
    """A network's encodings of spectra x (N, P, 4), `size` at a time, nothing being known: rows and (n, hidden)."""
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        part = mx.array(x[rows])
        nothing = mx.zeros((len(part), 5))
        yield rows, model.encode(part, nothing, nothing)


def drawn(model: Any, observed: Observed, count: int, seed: int = 0, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, count, 5) that a predictor draws, nothing being known, and ln of their density (N, count) in nats."""
    keys = iter(mx.random.split(mx.random.key(seed), -(-len(observed.x) // size)))
    parts = []
    for _, context in contexts(model, observed.x, size):
        nothing = mx.zeros((len(context), 5))
        found = model.sample(context, nothing, nothing, count, next(keys))
        parts.append([np.array(part, np.float64) for part in found])
    places, log_q = (np.concatenate(part) for part in zip(*parts, strict=True))
    return places, log_q


def near_the_truth(observed: Observed, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, count, 5), half about the truth and half from the prior, and ln of their density (N, count)."""
    rows, wide = len(observed.x), ENDS[1] - ENDS[0]
    close = rng.random((rows, count, 1)) < 0.5
    around = observed.places[:, None] + NEAR * rng.standard_normal((rows, count, 5))
    places = np.where(close, around, rng.uniform(*ENDS, (rows, count, 5)))
    square = ((places - observed.places[:, None]) ** 2).sum(axis=-1) / NEAR**2
    peak = -0.5 * square - 2.5 * np.log(2 * np.pi * NEAR**2)
    flat_part = np.where(((places >= ENDS[0]) & (places <= ENDS[1])).all(axis=-1), -5 * np.log(wide), -np.inf)
    return places, np.logaddexp(peak, flat_part) - np.log(2)


def exact_draws(
    observed: Observed, places: np.ndarray, log_q: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, float]]:
    """Places (N, count, 5) of the exact posterior, by evaluation.eis_posterior from draws (N, S, 5); noise level known.

    log_q (N, S): ln of the draws' density in nats per cell width. Also which weighted circuit each is (N, count), the
    effective sizes (N,) and what `densities` gives, by Bayes' rule.
    """
    found, effective, log_p = np.empty((len(places), count, 5)), *np.empty((2, len(places)))
    origin = np.empty((len(places), count), np.int64)
    repeats = 1000 if observed.rs else 1  # draws of the series resistance
    levels = (observed.level, observed.level)
    for row, z in enumerate(observed.z):
        measured: Any = SimpleNamespace(frequencies=observed.frequencies, z=z)  # no Spectrum: noise may look inductive
        problem = Problem(measured, observed.topology, levels=levels, rs=(observed.rs / RS_SPAN, observed.rs))
        posterior = infer(problem, places[row], log_q[row], 2 * count, rng)
        ends = np.cumsum(posterior.weights)
        at = np.searchsorted(ends, (np.arange(count) + rng.random()) / count * ends[-1])
        origin[row] = np.minimum(at, len(ends) - 1)
        found[row], effective[row] = posterior.places[origin[row]], posterior.effective
        truth = weighed(problem, np.tile(observed.places[row], (repeats, 1)), np.zeros(repeats), rng).log_weight
        log_p[row] = np.logaddexp.reduce(truth) - np.log(repeats) - posterior.log_evidence
    twins = rng.random((len(places), count, 1)) < 0.5  # a circuit that is found stands for its twin, equally likely
    exact = {"nll": float(-log_p.mean()), "merged_nll": float(-log_p.mean() - np.log(2))}
    return np.where(twins, found[..., SWAP], found), origin, effective, exact


def densities(model: Any, observed: Observed, size: int = 512) -> dict[str, float]:
    """nll: mean of -ln of a predictor's density at the truth (nats of cell widths); merged_nll: its twin's added."""
    found = []
    for rows, context in contexts(model, observed.x, size):
        places = observed.places[rows]
        sides = [model.log_density(context, mx.array(own, mx.float32)) for own in (places, places[:, SWAP])]
        found.append(np.stack([np.array((cell + inside).sum(axis=-1)) for cell, inside in sides], axis=-1))
    log_p = np.concatenate(found).astype(np.float64)
    return {"nll": float(-log_p[:, 0].mean()), "merged_nll": float(-np.logaddexp(*log_p.T).mean())}


def likeliest_cells(
    places: np.ndarray, weights: np.ndarray | None, merge: bool, origin: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Grid cells (N, 10, 5) that most draws (N, S, 5) fall into, their shares (N, 10), and a draw in each (N, 10, 5).

    merge: swapped twins count as one. origin (N, S) and the shares: see evaluation.eis_calibration.likeliest. The draw
    is the cell's likeliest by weight, else its first; where there are fewer cells than ten, the first is named again
    with share 0.
    """
    cells = cells_of(places)
    numbers = flat(canonical_indices(cells) if merge else cells)
    named, shares = np.empty((len(places), BEST), np.int64), np.zeros((len(places), BEST))
    example = np.empty((len(places), BEST, 5))
    for row, own in enumerate(numbers):
        mass = np.full(len(own), 1 / len(own)) if weights is None else weights[row] / weights[row].sum()
        order = np.argsort(-mass, kind="stable")
        found, first, group = np.unique(own[order], return_index=True, return_inverse=True)
        best, share = likeliest(group, mass[order], BEST, None if origin is None else origin[row, order])
        shares[row, : len(best)] = share
        best = np.concatenate([best, np.full(BEST - len(best), best[0])])
        named[row], example[row] = found[best], places[row, order[first[best]]]
    return np.stack(np.unravel_index(named, (POINTS,) * 5), axis=-1), shares, example


def quantities(parameters: np.ndarray, topology: str) -> dict[str, np.ndarray]:
    """log10 of the parameters (..., 5) in canonical order and of the invariants, by name, (...) each."""
    ordered = np.moveaxis(canonical(parameters), -1, 0)
    found = dict(zip(NAMES, ordered, strict=True)) | invariants(parameters, topology)
    return {name: np.log10(value) for name, value in found.items()}


def posterior_scores(
    observed: Observed,
    places: np.ndarray,
    weights: np.ndarray | None = None,
    bins: int = 20,
    origin: np.ndarray | None = None,
) -> dict[str, float]:
    """What draws (N, S, 5) with weights (N, S) say of the truths; twins are one circuit, in canonical order.

    origin (N, S): which draw each is a copy of, where some are copies.
    top1, top5, top10, ece, ece_floor: of the cells, with "merged_" twins added up; residual, residual_best10: mean
    |dZ| / |Z| of a draw in the likeliest cell, and the best of the ten likeliest; for each parameter and invariant
    coverage50, coverage90 (central intervals), sbc (chi-square of the ranks' histogram) and sbc_chance (of a larger
    one, were the posterior exact); error_<invariant>: median |log10| of the posterior's median over the truth.
    """
    found = {}
    for name, merge, truths in (("", False, observed.cells), ("merged_", True, canonical_indices(observed.cells))):
        cells, shares, example = likeliest_cells(places, weights, merge, origin)
        right = hits(cells, truths, 1)
        found |= {f"{name}top{k}": float(hits(cells, truths, k).mean()) for k in TOP}
        found[f"{name}ece"] = calibration_error(shares[:, 0], right)
        found[f"{name}ece_floor"] = calibration_floor(shares[:, 0], np.random.default_rng(0))
        if merge:
            found |= reconstructed(observed, from_places(example))
    own, true = (quantities(p, observed.topology) for p in (from_places(places), observed.parameters))
    middle = {}
    for name, values in own.items():
        for level in (0.5, 0.9):
            found[f"coverage{100 * level:.0f}_{name}"] = float(coverage(values, true[name], level, weights))
        statistic, chance = chi_square(rank_histogram(ranks(values, true[name], weights), bins))
        found[f"sbc_{name}"], found[f"sbc_chance_{name}"] = float(statistic), float(chance)
        middle[name] = 10 ** quantiles(values, HALF, weights)[0]
    named = invariants(observed.parameters, observed.topology)
    return found | invariant_errors({name: middle[name] for name in named}, observed.parameters, observed.topology)
