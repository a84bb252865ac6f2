"""The posterior over the circuits of one spectrum: a network proposes, the exact likelihood decides.

Neural posterior estimation with importance sampling (Dax et al. 2023, PRL 130, 171403): circuits drawn by the network
are weighted by likelihood x prior / density. Where the spectrum says more than the network resolves, few of them count
(the effective sample size tells); then proposals around them, moved onto the spectrum, take over, and are fitted to
the weighted circuits again until enough count (population Monte Carlo, Cappe et al. 2004, JCGS 13, 907). A parallel
circuit of which nothing is known lies on a curve that its spectrum leaves open: there the proposals are for the four
numbers that the spectrum determines (domains.eis_shunt), and Rsh follows its exact prior along the curve.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from domains.eis import CELL, ENDS, LOWEST, SWAP, canonical, from_places, to_places
from domains.eis_shunt import log_volume, open_shunt, with_shunt
from evaluation.eis_likelihood import Problem, deviation, log_add, log_sum
from evaluation.eis_mixture import Mixture, around
from evaluation.eis_rs import against_rs, draw_rs

FEWEST, CENTRES = 8, 32  # of the first round's mixture; in between, twice the square of how many parameters are open
LATER = 64  # of the others
REACH = 1.0  # cells that a component is wide where the spectrum says nothing
STEPS = 10
PIECES = 32  # of Rsh's conditional density
FLOOR = 0.05  # share of it that is flat
ROWS = 256  # at a time, so that their arrays stay in the processor's cache
SERIES = 16  # draws of Rs for each circuit of a grid


@dataclass(frozen=True)
class Posterior:
    """Weighted circuits: places (N, 5), rs (N,) in ohm, weights (N,) of sum 1, misfits (N,) (see `Draws`).

    effective: of the weights, (sum w)^2 / sum w^2; None where circuits are enumerated. network: the same of the
    network's own draws, drawn: their number. rounds: of proposals after them. log_evidence: ln p(spectrum) in nats.
    """

    places: np.ndarray
    rs: np.ndarray
    weights: np.ndarray
    misfit: np.ndarray
    effective: float | None = None
    network: float | None = None
    drawn: int = 0
    rounds: int = 0
    log_evidence: float | None = None


@dataclass(frozen=True)
class Draws:
    """Circuits with ln of likelihood x prior / density (N,), which may be -inf.

    misfit (N,): the sum of squares of evaluation.eis_likelihood.deviation, for modulus noise of |dZ|^2 / |Z|^2 over
    frequencies, infinite for circuits that the prior excludes.
    """

    places: np.ndarray
    rs: np.ndarray
    misfit: np.ndarray
    log_weight: np.ndarray

    @cached_property
    def weights(self) -> np.ndarray:
        """Of sum 1; equal where no circuit is possible."""
        most = self.log_weight.max()
        found = np.exp(self.log_weight - most) if np.isfinite(most) else np.ones(len(self.log_weight))
        return found / found.sum()

    @cached_property
    def effective(self) -> float:
        """Effective sample size; 0 where no circuit is possible."""
        return float(1 / (self.weights**2).sum()) if np.isfinite(self.log_weight.max()) else 0.0


def infer(
    problem: Problem, places: np.ndarray, log_q: np.ndarray, count: int, rng: np.random.Generator,
    enough: float = 0.2, most_rounds: int = 5,
) -> Posterior:  # fmt: skip
    """The posterior from a network's draws at places (N, 5) with ln of their density (N,).

    Rounds of `count` proposals follow until a round's effective share is `enough`; most_rounds 0 leaves the network's
    draws, reweighted. All rounds count, by their effective sizes.
    """
    first = weighed(problem, places, log_q, rng)
    found: list[Draws] = []
    while len(found) < most_rounds and (not found or found[-1].effective < enough * count):
        steps = STEPS if not found and first.effective < enough * len(places) else 0
        seeds = started(problem, places) if steps else chosen([*found, first], LATER, rng)
        if not steps:  # so that no part of the draws is forgotten
            seeds = np.concatenate([places[: LATER // 8], seeds[LATER // 8 :]])
        found.append(proposed(problem, seeds, count, steps, len(found) % 2 == 0, rng))
    kept = [draws for draws in found if draws.effective > 0] or [first]
    best = max(kept, key=lambda draws: draws.effective)
    if best.effective >= enough * len(best.weights):
        kept = [best]  # the rounds before it were on their way
    share = np.array([draws.effective for draws in kept]) / max(sum(draws.effective for draws in kept), 1e-300)
    weights = np.concatenate([part * draws.weights for part, draws in zip(share, kept, strict=True)])
    counts = weights > 0
    weights = weights[counts]
    joined = [np.concatenate([getattr(draws, name) for draws in kept])[counts] for name in ("places", "rs", "misfit")]
    evidence = float(log_sum(best.log_weight) - np.log(len(best.log_weight)))
    return Posterior(joined[0], joined[1], weights, joined[2], float(1 / (weights**2).sum()) if share.sum() else 0.0,
                     first.effective, len(places), len(found), evidence)  # fmt: skip


def started(problem: Problem, places: np.ndarray) -> np.ndarray:
    """Where to start the search from: the first of a network's places (N, 5).

    Where something is known of one membrane, also from there with the membranes swapped: which of the two it is of may
    be open, as in a parallel circuit with Rsh unknown.
    """
    places = places[: min(CENTRES, max(FEWEST, 2 * len(problem.free) ** 2))]
    if problem.symmetric or not {1, 2, 3, 4} & set(problem.free):
        return places
    swapped, known = places[:, SWAP], list(problem.known)
    swapped[:, known] = places[:, known]
    return np.concatenate([places, swapped])


def weighed(problem: Problem, places: np.ndarray, log_q: np.ndarray, rng: np.random.Generator) -> Draws:
    """Circuits at places (N, 5), drawn with ln density log_q (N,) per cell width, with their weights.

    Rs is drawn for each where it is free.
    """
    log_weight = problem.log_prior(places) - log_q
    rows = np.flatnonzero(np.isfinite(log_weight))
    rs, misfit = np.full(len(places), problem.rs[0]), np.full(len(places), np.inf)
    blocks = [slice(start, start + ROWS) for start in range(0, len(rows), ROWS)]
    observed, ratios = problem.spectrum.z, problem.ratios(places[rows])
    model = [ratios.parts(block) for block in blocks]
    square, size = np.empty((2, len(rows)))
    if problem.rs_free:
        for block, z in zip(blocks, model, strict=True):
            square[block], size[block] = against_rs(problem, *z)
    rs[rows], log_rs = draw_rs(problem, square, size, rng)
    for block, (real, imaginary) in zip(blocks, model, strict=True):
        real += rs[rows[block], None]
        square[block], size[block] = deviation(observed, real, imaginary, problem.kind)
    misfit[rows] = square
    log_weight[rows] += problem.of_deviation(square, size) + log_rs
    return Draws(places, rs, misfit, log_weight)


def over_grid(problem: Problem, places: np.ndarray, rng: np.random.Generator) -> tuple[Draws, np.ndarray]:
    """Circuits at places (K, 5) of equal prior, and the probabilities (K,) that the likelihood gives them.

    Where Rs is free the likelihood's mean over SERIES draws of it counts, and the best of them is the circuit's.
    """
    repeats = SERIES if problem.rs_free else 1
    draws = weighed(problem, np.repeat(places, repeats, axis=0), np.zeros(len(places) * repeats), rng)
    each = draws.log_weight.reshape(len(places), repeats)
    best = np.arange(len(places)) * repeats + each.argmax(axis=1)
    total = log_sum(each)
    kept = Draws(draws.places[best], draws.rs[best], draws.misfit[best], total)
    return kept, kept.weights


def chosen(sets: list[Draws], count: int, rng: np.random.Generator) -> np.ndarray:
    """Places (count, 5) of circuits drawn again by weight, each set in proportion to its effective size.

    Weights are flattened until as many circuits count.
    """
    share = np.array([draws.effective for draws in sets]) + 1e-9
    log_weight = np.concatenate([np.log(np.maximum(draws.weights, 1e-300)) + np.log(part) for part, draws in
                                 zip(share / share.sum(), sets, strict=True)])  # fmt: skip
    for power in (1.0, 0.7, 0.5, 0.35, 0.25, 0.15):
        weight = np.exp(power * (log_weight - log_weight.max()))
        if weight.sum() ** 2 / (weight**2).sum() > count:
            break
    ends = np.cumsum(weight) / weight.sum()
    rows = np.searchsorted(ends, (np.arange(count) + rng.random()) / count)
    return np.concatenate([draws.places for draws in sets])[np.minimum(rows, len(ends) - 1)]


def proposed(
    problem: Problem, seeds: np.ndarray, count: int, steps: int, curved: bool, rng: np.random.Generator
) -> Draws:
    """A round: `count` circuits from the mixture around seeds (M, 5), with their weights.

    curved: along the curve of parallel circuits that the spectrum leaves open, where nothing of them is known.
    """
    if curved and problem.topology == "parallel" and not problem.known:
        return along_the_curve(problem, seeds, count, steps, rng)
    if problem.symmetric:
        seeds = to_places(canonical(from_places(seeds)))
    mixture = around(problem, seeds, REACH, steps, ENDS)
    places = np.tile(seeds[0], (count, 1))
    places[:, problem.free] = mixture.draw(count, rng)
    return weighed(problem, places, folded(problem, mixture, places), rng)


def folded(problem: Problem, mixture: Mixture, places: np.ndarray) -> np.ndarray:
    """ln of the density (N,) of circuits at places (N, 5), and of their twins where membranes can't be told apart.

    Drawn circuits then stand for their twins: half the chance of each.
    """
    log_q = mixture.log_density(places[:, problem.free])
    if problem.symmetric:
        log_q = log_add(log_q, mixture.log_density(places[:, SWAP][:, problem.free])) - np.log(2)
    return log_q


def along_the_curve(problem: Problem, seeds: np.ndarray, count: int, steps: int, rng: np.random.Generator) -> Draws:
    """`proposed` for parallel circuits of which nothing is known: without a shunt, then with one."""
    still = replace(problem, topology="series", known={0: 0.0})
    start = np.full(seeds.shape, -np.inf)  # no shunt: 0 ohm in series
    start[:, 1:] = np.log(open_shunt(from_places(seeds)) / LOWEST[1:]) / CELL[1:]
    mixture = around(still, start, REACH, steps, (-30.0, 30.0))
    places = np.full((count, 5), -np.inf)
    places[:, 1:] = mixture.draw(count, rng)
    log_q = folded(still, mixture, places)
    membranes = from_places(places)[:, 1:]
    rsh, log_rsh = draw_rsh(membranes, rng)
    circuits = with_shunt(membranes, rsh)
    with np.errstate(invalid="ignore", divide="ignore"):
        placed = to_places(circuits)
        log_q = log_q + log_rsh - log_volume(membranes, circuits)
    impossible = ~np.isfinite(log_q) | ~np.isfinite(placed).all(axis=1)
    return weighed(problem, np.where(impossible[:, None], -np.inf, placed), np.where(impossible, 0, log_q), rng)


def draw_rsh(membranes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rsh (N,) in ohm for open-shunt membranes (N, 4), about by the prior along the curve, and ln of its density.

    The density is per cell width of ln Rsh. It is flat in each of PIECES equal parts of v = ln(Rsh / TER - 1), between
    where Rsh leaves the prior and where both resistances must have left it: the membranes grow as 1 + e^-v. NaN where
    there is no such Rsh.
    """
    largest = LOWEST[0] * np.exp(ENDS[1] * CELL[0])
    resistance = membranes[:, :2].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = -np.log(2 * largest / resistance - 1), np.log(largest / resistance - 1)
        wide = np.where(high > low, high - low, np.nan)
        v = low[:, None] + wide[:, None] * np.arange(PIECES + 1) / PIECES
        circuits = with_shunt(membranes[:, None], resistance[:, None] * (1 + np.exp(v)))
        places = to_places(circuits)
        inside = ((places >= ENDS[0]) & (places <= ENDS[1])).all(axis=-1)
        # the volume is that of ln Rsh; d ln Rsh / d v = 1 / (1 + e^-v)
        height = np.where(inside, log_volume(membranes[:, None], circuits) - np.log1p(np.exp(-v)), -np.inf)
        most = height.max(axis=1, keepdims=True)
        height = np.where(inside, np.exp(height - np.where(np.isfinite(most), most, 0)), 0)
        share = height[:, 1:] + height[:, :-1] + 1e-300
        share = (1 - FLOOR) * share / share.sum(axis=1, keepdims=True) + FLOOR / PIECES
        ends = np.cumsum(share, axis=1)
        piece = np.minimum((ends < rng.random((len(ends), 1)) * ends[:, -1:]).sum(axis=1), PIECES - 1)
        found = low + wide * (piece + rng.random(len(low))) / PIECES
        density = share[np.arange(len(low)), piece] * PIECES / wide * (1 + np.exp(-found)) * CELL[0]
        return resistance * (1 + np.exp(found)), np.log(density)
