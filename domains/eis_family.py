"""Circuits that one spectrum cannot tell apart: other shunts of a parallel circuit, exactly, and fits along a value."""

import numpy as np

from domains.eis import HIGHEST, LOWEST, NAMES, SWAP, canonical, check_topology, impedance
from domains.eis_fit import levenberg_marquardt
from domains.eis_shunt import open_shunt, with_shunt
from domains.eis_spectrum import HALF_CELL, HIGH, LOW

NOISE = 4.0  # growth of chi squared that counts as within the noise: two standard deviations
PATIENCE = 15  # steps of the fits
FEW = 30  # frequencies that are enough to follow a family
STEPS = 16  # values along the prior's range, and again inside the last steps at either end


def ridge(parameters: np.ndarray, points: int = 2401) -> np.ndarray:
    """The parallel circuits with the same impedance as `parameters` (5,), itself in their middle, (points, 5).

    They are equally far apart in ln((Ra + Rb) / Rsh), which is symmetric in the shunt and what it shunts, from e^-16
    to e^16 times as much as at `parameters`.
    """
    parameters = np.asarray(parameters, float)
    rest = parameters[1] + parameters[2]
    least = parameters[0] * rest / (parameters[0] + rest)
    shares = np.log(rest / parameters[0]) + np.linspace(-16, 16, points)
    with np.errstate(all="ignore"):  # equal time constants: the other circuits have one membrane and no numbers
        found = with_shunt(open_shunt(parameters), least * (1 + np.exp(-shares)))
    if (canonical(parameters) != parameters).any():
        found = found[:, SWAP]
    found[points // 2] = parameters
    return found


def within_prior(circuits: np.ndarray, wider: float = 1.0) -> np.ndarray:
    """Which circuits (M, 5) lie within the continuous prior, or within a factor `wider` of it, (M,) bool."""
    return np.all((circuits >= LOW / wider) & (circuits <= HIGH * wider), axis=1)


def thinned(frequencies: np.ndarray, level: float) -> tuple[np.ndarray, float]:
    """Every second, third, ... of many frequencies, FEW at least, and the noise level that makes up for the others."""
    every = max(1, len(frequencies) // FEW)
    return np.sort(frequencies)[::every], level / np.sqrt(every)


def profile(
    parameters: np.ndarray, name: str, frequencies: np.ndarray, topology: str, level: float,
    known: tuple[str, ...] = (), rs: float = 0.0, rs_free: bool = False, along: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Circuits (M, 5) ascending in `name` that fit the spectrum of `parameters` (5,) within noise of size `level`.

    At values of `name` along the prior the others but those in `known` are fitted again, within the prior; kept are
    the circuits around `parameters`, without a gap, whose chi squared is below NOISE. along: (M, 5), circuits on whose
    nearest the fits start; from the last that fits they go on.
    """
    check_topology(topology)
    parameters = np.asarray(parameters, float)
    frequencies, level = thinned(frequencies, level)
    at, z = NAMES.index(name), impedance(parameters, frequencies, topology, rs)
    along = np.concatenate([parameters[None], parameters[None] if along is None else along])
    box = np.maximum(HALF_CELL, np.maximum(LOWEST / parameters, parameters / HIGHEST))  # the prior, and the circuit
    held = {other: parameters[NAMES.index(other)] for other in known}

    def fitted(values: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        start = np.concatenate([np.clip(start, LOWEST / box, HIGHEST * box), np.full((len(values), 1), rs)], axis=1)
        fit = levenberg_marquardt(frequencies, z, start, topology, held | {name: values}, None if rs_free else rs,
                                  PATIENCE, box, NOISE * level**2)  # fmt: skip
        squares = fit.variance * max(2 * len(z) - len(fit.free), 1)
        return fit.parameters, squares <= NOISE * level**2

    def nearest(values: np.ndarray) -> np.ndarray:
        return along[np.abs(np.log(values[:, None] / along[:, at])).argmin(axis=1)]

    values = np.unique(np.r_[np.geomspace(LOW[at], HIGH[at], STEPS), parameters[at]])
    own = int(np.searchsorted(values, parameters[at]))
    circuits, good = fitted(values, nearest(values))
    circuits[own], good[own] = parameters, True
    for _ in range(STEPS):
        pairs = [(i, j) for i, j in _edges(good, own) if i not in (-1, len(values))]
        if not pairs:
            break
        at_edge, inside = np.array(pairs).T
        more, fits = fitted(values[at_edge], circuits[inside])
        circuits[at_edge], good[at_edge] = more, fits
        if not fits.any():
            break
    finer = [(np.geomspace(values[i], values[j], STEPS // 2 + 2)[1:-1], circuits[j])
             for i, j in _edges(good, own) if i not in (-1, len(values))]  # fmt: skip
    for steps, start in finer:
        more, fits = fitted(steps, np.tile(start, (len(steps), 1)))
        values, circuits, good = np.r_[values, steps], np.concatenate([circuits, more]), np.r_[good, fits]
    order = np.argsort(values, kind="stable")
    own = int(np.nonzero(order == own)[0][0])
    (first, _), (last, _) = _edges(good[order], own)
    return circuits[order][first + 1 : last]


def _edges(good: np.ndarray, own: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first False below and above `own` (-1, M: none), each with its neighbour in the unbroken row of True."""
    bad = np.nonzero(~good)[0]
    first, last = int(bad[bad < own].max(initial=-1)), int(bad[bad > own].min(initial=len(good)))
    return (first, first + 1), (last, last - 1)
