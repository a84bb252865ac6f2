"""What a spectrum says of its circuit: likeliest circuits, marginals, intervals, and how far to trust them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from domains.eis import (
    CELL,
    NAMES,
    POINTS,
    SWAP,
    canonical,
    canonical_indices,
    cells_of,
    from_places,
    invariants,
    relative_residual,
    residual_norm,
)
from evaluation.eis_calibration import likeliest, quantiles
from evaluation.eis_likelihood import Problem
from evaluation.eis_oracle import flat
from evaluation.eis_posterior import Posterior

PLAIN = {float, int, str, bool, type(None)}
SHARES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])  # of the posterior, below an estimate's median and ends


@dataclass
class Circuit:
    """One candidate: values in ohm and farad with "Rs", probability of its grid cell (and its twin's, where merged).
    network_probability: by the network alone. residual: mean |dZ| in ohm to the spectrum, relative: its log10 over mean
    |Z|; predicted_relative: what the network says of that. All three are None without a spectrum.
    """

    values: dict[str, float]
    probability: float
    network_probability: float | None = None
    residual: float | None = None
    relative: float | None = None
    predicted_relative: float | None = None


@dataclass
class Estimate:
    """Of one quantity in ohm, farad or second: median, and the intervals that hold 50% and 90% of the posterior."""

    median: float
    half: tuple[float, float]
    most: tuple[float, float]


@dataclass
class Prediction:
    """The posterior of one spectrum's circuit; `to_dict` is all of it but the weighted circuits themselves.

    circuits: likeliest first. marginals: probabilities of the 12 cells of each unknown parameter. estimates: of these
    and, where it is free, "Rs"; invariants: of what does not depend on the membranes' order (domains.eis.invariants).
    entropy: nats of the joint probability of the cells, of `entropy_of_prior`. effective: how many independent circuits
    the weighted ones are worth; network_effective: the same of the network's own `drawn` draws (None on a grid, whose
    likeliest circuits are enumerated: they hold the share `covered` of the network's probability). noise: the relative
    size of what is left, by the measure of `noise_kind`. log_evidence: ln p(spectrum), to compare topologies by;
    noise_evidence: the same under each kind of noise, where they were compared. merged: the membranes can't be told
    apart, a is the quicker one. parameters (N, 5), rs (N,), weights (N,): the weighted circuits, for bands.
    """

    topology: str
    name: str
    spectrum: bool
    known: dict[str, float]
    merged: bool
    circuits: list[Circuit]
    marginals: dict[str, list[float]]
    estimates: dict[str, Estimate]
    invariants: dict[str, Estimate]
    entropy: float
    entropy_of_prior: float
    effective: float | None = None
    network_effective: float | None = None
    drawn: int = 0
    covered: float = 1.0
    noise: Estimate | None = None
    log_evidence: float | None = None
    noise_kind: str = "modulus"
    noise_evidence: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    parameters: np.ndarray = field(repr=False, default_factory=lambda: np.empty((0, 5)))
    rs: np.ndarray = field(repr=False, default_factory=lambda: np.empty(0))
    weights: np.ndarray = field(repr=False, default_factory=lambda: np.empty(0))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts, lists and dictionaries, for JSON."""
        arrays = ("parameters", "rs", "weights")
        return {name: plain(value) for name, value in vars(self).items() if name not in arrays}


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries, arrays and tuples as lists, all numbers Python's own."""
    if type(value) in PLAIN:  # most of a record
        return value
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(part) for part in value]
    if isinstance(value, Circuit | Estimate):
        return plain(vars(value))
    return value.item() if isinstance(value, np.generic) else value


def estimates_of(weights: np.ndarray, *groups: dict[str, np.ndarray]) -> list[dict[str, Estimate]]:
    """Weighted quantiles of the values (N,) in each group, by name; those of all groups at once take half the time."""
    values = [value for group in groups for value in group.values()]
    if not values:
        return [{} for _ in groups]
    cuts = iter(quantiles(np.stack(values, axis=-1)[None], SHARES, weights[None])[:, 0].T.tolist())
    return [{name: Estimate(cut[2], (cut[1], cut[3]), (cut[0], cut[4])) for name, cut in zip(group, cuts, strict=False)}
            for group in groups]  # fmt: skip


def ordered(places: np.ndarray, merge: bool) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 5), their membranes in canonical order where they are merged, and the cells (N, 5) they lie in."""
    if merge:
        later = (places[:, [1, 3]] - places[:, [2, 4]]) @ CELL[[1, 3]] > 0  # Ra Ca > Rb Cb, as in `canonical`
        places = np.where(later[:, None], places[:, SWAP], places)
    cells = cells_of(places)
    if merge:  # a cell may lie on both sides of the order: its twin is then the same candidate
        first = canonical_indices(cells)
        turned = (first != cells).any(axis=1, keepdims=True)
        places, cells = np.where(turned, places[:, SWAP], places), first
    return places, cells


def summarise(
    problem: Problem, posterior: Posterior, own: np.ndarray, own_weights: np.ndarray, top_k: int
) -> tuple[Prediction, np.ndarray]:
    """The prediction, and the places (K, 5) of its circuits for the network's word on them.

    own: the network's places (N, 5), their weights (N,) of a sum up to 1. A circuit is the best fitting of its cell.
    """
    weights, merge, observed = posterior.weights, problem.symmetric, problem.spectrum.z
    known = {NAMES[i]: value for i, value in problem.known.items()}
    places, cells = ordered(posterior.places, merge)
    found, member = np.unique(flat(cells), return_inverse=True)
    probability = np.bincount(member, weights)
    if posterior.effective is None:  # enumerated, not drawn
        best = np.argsort(-probability, kind="stable")[:top_k]
        stated = probability[best]
    else:
        best, stated = likeliest(member, weights, top_k)
    before = shares(own, own_weights, merge)
    best = best[probability[best] > 0]
    misfit = np.where(weights > 0, posterior.misfit, np.inf)
    order = np.lexsort((misfit, member))
    fits = order[np.searchsorted(member[order], best)]  # of each cell the first
    kept, rs = places[fits], posterior.rs[fits]
    z = problem.impedance(kept) + rs[:, None]
    values = [dict(zip(NAMES, row, strict=True)) | known | {"Rs": series} for row, series in
              zip(from_places(kept).tolist(), rs.tolist(), strict=True)]  # fmt: skip
    columns = (stated[: len(best)], found[best], residual_norm(z, observed), relative_residual(z, observed))
    circuits = [Circuit(of, share, before.get(cell, 0.0), *off) for of, share, cell, *off in
                zip(values, *(one.tolist() for one in columns), strict=True)]  # fmt: skip
    parameters = from_places(posterior.places)
    parameters = canonical(parameters) if merge else parameters
    wanted = {NAMES[i]: parameters[:, i] for i in problem.free} | ({"Rs": posterior.rs} if problem.rs_free else {})
    level = np.sqrt(posterior.misfit / (2 * len(observed)))
    estimates, whole, noise = estimates_of(weights, wanted, invariants(parameters, problem.topology), {"noise": level})
    positive = probability[probability > 0]
    twins = (1 - 1 / POINTS**2) * float(np.log(2)) if merge else 0.0  # all cells but those of equal membranes
    return Prediction(
        problem.topology, problem.spectrum.name, True, known, merge,
        circuits, {NAMES[i]: np.bincount(cells[:, i], weights, POINTS).tolist() for i in problem.free}, estimates,
        whole, max(0.0, float(-(positive * np.log(positive)).sum())), len(problem.free) * float(np.log(POINTS)) - twins,
        posterior.effective, posterior.network, posterior.drawn, float(own_weights.sum()), noise["noise"],
        posterior.log_evidence, problem.kind, {}, [], parameters, posterior.rs, weights,
    ), kept  # fmt: skip


def shares(places: np.ndarray, weights: np.ndarray, merge: bool) -> dict[int, float]:
    """Probabilities by the numbers of the cells that weighted places lie in."""
    found, member = np.unique(flat(ordered(places, merge)[1]), return_inverse=True)
    return dict(zip(found.tolist(), np.bincount(member, weights).tolist(), strict=True))
