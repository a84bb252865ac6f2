"""Fits of circuits to many spectra from nothing but the spectra: time constants are searched, resistances follow.

Z = R0 + R1 / (1 + jw tau1) + R2 / (1 + jw tau2) is a series circuit, and a parallel one (domains.eis_shunt) after a
series resistance R0. All pairs of a list of time constants are tried at once, the first of a pair with the derivative
of its term beside it: a time constant a little off the list would else hide a smaller term. After a step of the
search (domains.eis_projection) the larger term stands where terms of .1% show beside it; what a second list then says
is another place to search from. Of a parallel circuit's family one inside of the grid is taken.
"""

from typing import Any

import numpy as np

from domains.eis import CELL, ENDS, HIGHEST, LOWEST, Impedance, check_topology, from_places, impedance
from domains.eis_fit import Fit, levenberg_marquardt, replaced
from domains.eis_projection import LOGS, OHMS, SMALL, SQUARES, Projected
from domains.eis_shunt import with_shunt
from runtime.errors import UsageError

LISTED, FINE = 16, 32  # time constants of a pair, and of a second term beside a known one
MARGIN = 0.5  # ln of how far they reach beyond the inverse angular frequencies
SHIFT = 0.75  # of the distance between two of them, the farthest that the derivative moves one
SPLIT = 1.03  # two terms where the spectrum shows one: apart from its time constant by this factor
FAR = 0.7  # ln: a second term so far from the pair's is searched from as well
SOONER, LATER = 3, 13  # steps of all, and of those that are not done then
SHUNTS = np.exp(np.linspace(-9, 3, 13))  # Rsh / TER - 1 of the parallel circuits tried
BEYOND = 9.8  # a factor by which a start may leave the grid, a little less than a fit may
ROWS = 512  # at a time, so that their arrays stay in the processor's cache


def fit(frequencies: np.ndarray, z: Impedance, topology: str, rs: float | np.ndarray | None = 0.0) -> Fit:
    """The fit (N,) of spectra z (N, F) at frequencies (F,) in Hz, its arguments those of `starts`.

    Only circuits that had to be moved off their spectra, or whose search had not ended, take steps of
    Levenberg-Marquardt.
    """
    circuits, sure = starts(frequencies, z, topology, rs)
    found = levenberg_marquardt(frequencies, z, circuits, topology, rs=rs, steps=0)
    if not len(rows := np.flatnonzero(~sure)):
        return found
    own = rs if rs is None else np.broadcast_to(rs, len(z))[rows]
    rest = levenberg_marquardt(frequencies, z[rows], circuits[rows], topology, rs=own, small=SMALL)
    return replaced(found, rows, rest)


def starts(
    frequencies: np.ndarray, z: Impedance, topology: str, rs: float | np.ndarray | None = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Circuits (N, 6) near spectra z (N, F) at frequencies (F,) in Hz, Rs last, and which need no fit, (N,) bool.

    rs: the series resistance in ohm, a number or (N,), or None for parallel circuits of which it is not known. Raises
    UsageError for series circuits without it, where Rs and Rsh are one resistance.
    """
    check_topology(topology)
    if rs is None and topology == "series":
        raise UsageError("in a series circuit Rs and Rsh are one resistance: give Rs.")
    w = 2 * np.pi * np.asarray(frequencies, float)
    given = np.broadcast_to(np.asarray(0.0 if rs is None else rs, float), len(z))
    seen = np.asarray(z) - given[:, None]
    size = np.abs(z)
    taus, ohms, squares, done = terms(w, seen, size, constant=topology == "series" or rs is None)
    found, moved = _circuits(ohms, taus, topology)
    if len(rows := np.flatnonzero(moved)):
        some = frequencies, seen[rows], size[rows], topology
        found[rows], left = _with_less(*some, found[rows], ohms[rows], taus[rows])
        done[rows] &= left <= (1 + SMALL) * squares[rows]
    found[:, 5] += given
    return found, done


def terms(w: np.ndarray, z: Impedance, size: np.ndarray, constant: bool) -> tuple[np.ndarray, ...]:
    """The terms nearest to spectra z (N, F) at w (F,) = 2 pi f, by errors over size (N, F).

    constant: False keeps R0 at 0. Returns time constants (N, 2) in s, R1, R2, R0 (N, 3) in ohm, sums of squares (N,),
    and whether the search ended (N,).
    """
    listed = Listed(w, constant)
    parts = [_begun(listed, z[i : i + ROWS], size[i : i + ROWS], i) for i in range(0, len(z), ROWS)]
    entries, rows, unfinished = (np.concatenate(part) for part in zip(*parts, strict=True))
    left = np.flatnonzero(unfinished)
    for i in range(0, len(left), ROWS):  # of all blocks together: a NumPy call on a few rows costs as much as on many
        some = left[i : i + ROWS]
        own = entries[some]
        on = Projected(w, z[rows[some]], size[rows[some]], constant).search(own, np.arange(len(some)), LATER)
        entries[some] = own
        unfinished[some] = False
        unfinished[some[on]] = True
    order = np.lexsort((entries[:, SQUARES], rows))
    best = order[np.unique(rows[order], return_index=True)[1]]
    found = entries[best]
    return np.exp(found[:, LOGS]), found[:, OHMS], found[:, SQUARES], ~unfinished[best]


def _begun(listed: "Listed", z: Impedance, size: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries of the search for two terms, their rows, that of z[0] being `first`, and which are not done (n,)."""
    projected, every = Projected(listed.w, z, size, listed.constant), np.arange(len(z))
    pairs = projected.at(np.log(listed.pairs(z, size)), every)
    projected.search(pairs, every, 1)
    logs, (one, two, _) = pairs[:, LOGS], pairs[:, OHMS].T
    large, small = np.where(one < two, logs[:, ::-1].T, logs.T)
    other = projected.second(large, listed.fine)
    far = np.flatnonzero(np.abs(other - small) > FAR)
    entries = np.concatenate([pairs, projected.at(np.stack([large, other], axis=1)[far], far)])
    rows, unfinished = np.concatenate([every, far]), np.zeros(len(entries), bool)
    unfinished[projected.search(entries, rows, SOONER)] = True
    return entries, rows + first, unfinished


class Listed:
    """Time constants equally far apart in logarithm, and their terms 1 / (1 + jw tau) at angular frequencies w (F,).

    constant: whether a resistance is in series with the terms.
    """

    def __init__(self, w: np.ndarray, constant: bool):
        self.w, self.constant = w, constant
        ends = np.log(w.max()) + MARGIN, np.log(w.min()) - MARGIN
        self.fine = -np.linspace(*ends, FINE)
        self.taus, self.apart = np.exp(-np.linspace(*ends, LISTED)), (ends[0] - ends[1]) / (LISTED - 1)
        x = w[:, None] * self.taus
        term = 1 / (1 + 1j * x)
        terms: Any = np.concatenate([term, -1j * x * term**2], axis=1)  # beside d / d ln tau, (F, 2 K)
        products = (term.conj()[:, :, None] * terms[:, None]).real.reshape(len(w), -1)
        # single precision: the list is coarser than that
        parts = terms.real, terms.imag, products, np.abs(terms[:, LISTED:]) ** 2
        self.real, self.imaginary, self.products, self.steep = (part.astype(np.float32) for part in parts)

    def pairs(self, z: Impedance, size: np.ndarray) -> np.ndarray:
        """The best two time constants (N, 2) in s of spectra z (N, F), the first moved off the list.

        Least squares of (Z_model - Z) / size (N, F) for every pair (second q, first p), with no resistance below 0.
        """
        count, k = len(z), LISTED
        unit = size[:, :1]
        weighed = (unit / size) ** 2
        weight, real, imaginary = (part.astype(np.float32) for part in (
            weighed, weighed * z.real / unit, weighed * z.imag / unit))  # fmt: skip
        b = real @ self.real + imaginary @ self.imaginary
        both = (weight @ self.products).reshape(count, k, 2 * k)
        f = weight @ self.steep
        if self.constant:  # taken out of all the others
            u, total = weight @ self.real, weight.sum(axis=1, keepdims=True)
            share = u / total
            b -= share * real.sum(axis=1, keepdims=True)
            both -= u[:, :k, None] * share[:, None]
            f -= u[:, k:] * share[:, k:]
        h, g = both[..., :k], both[..., k:]  # of q with p, and with p's derivative
        d, e = np.einsum("nkk->nk", h), np.einsum("nkk->nk", g)
        det = d * f - e * e
        inverse = [(part / det)[:, None] for part in (f, -e, d)]
        bp, bd = b[:, None, :k], b[:, None, k:]
        alone = inverse[0] * bp + inverse[1] * bd, inverse[1] * bp + inverse[2] * bd
        hh, gg = inverse[0] * h + inverse[1] * g, inverse[1] * h + inverse[2] * g
        left = d[:, :, None] - h * hh - g * gg
        rest = b[:, :k, None] - h * alone[0] - g * alone[1]
        second = rest / np.maximum(left, 1e-6 * d[:, :, None])
        second[:, range(k), range(k)] = 0  # no pair: what is left is rounding
        first, moved = alone[0] - hh * second, alone[1] - gg * second
        possible = (second > 0) & (first > 0) & (np.abs(moved) <= SHIFT * self.apart * first)
        gain = np.where(possible, alone[0] * bp + alone[1] * bd + rest * second, 0)
        best = gain.reshape(count, -1).argmax(axis=1)
        q, p, rows = best // k, best % k, np.arange(count)
        own = first[rows, q, p]
        ratio = moved[rows, q, p] / np.where(own > 0, own, 1)
        reach = SHIFT * self.apart
        return np.stack([self.taus[p] * np.exp(np.clip(ratio, -reach, reach)), self.taus[q]], axis=1)


def _circuits(ohms: np.ndarray, taus: np.ndarray, topology: str) -> tuple[np.ndarray, np.ndarray]:
    """Circuits (N, 6) with Rs last, near the grid, of R1, R2, R0 (N, 3) and time constants (N, 2), and which are moved.

    Where one term is left it is split in two; of parallel circuits the one that lies most inside of the grid counts.
    """
    one = ohms[:, :2].min(axis=1) <= (LOWEST[1] / BEYOND if topology == "series" else 0)
    most, own = np.maximum(ohms[:, :2].max(axis=1), 1e-9), np.where(ohms[:, 0] >= ohms[:, 1], *taus.T)
    r = np.where(one[:, None], most[:, None] / 2, ohms[:, :2])
    taus = np.where(one[:, None], own[:, None] * [1 / SPLIT, SPLIT], taus)
    membranes, ends = np.concatenate([r, taus / r], axis=1), [np.log(from_places(np.full(5, end))) for end in ENDS]
    if topology == "series":
        best = np.log(np.concatenate([np.maximum(ohms[:, 2:], 1e-9), membranes], axis=1))
        rs = np.zeros((len(r), 1))
    else:
        many = with_shunt(membranes[:, None], r.sum(axis=1)[:, None] * (1 + SHUNTS))
        many = np.log(np.where(many > 0, many, np.inf))
        outside = np.maximum(ends[0] - many, 0) ** 2 + np.maximum(many - ends[1], 0) ** 2
        far = (outside + 1e-3 * ((many - sum(ends) / 2) / CELL) ** 2).sum(axis=-1)
        best, rs = many[np.arange(len(r)), np.nan_to_num(far, nan=np.inf).argmin(axis=1)], ohms[:, 2:]
    near = np.clip(best, np.log(LOWEST / BEYOND), np.log(HIGHEST * BEYOND))
    return np.concatenate([np.exp(near), rs], axis=1), one | (near != best).any(axis=1)


def _with_less(
    frequencies: np.ndarray, z: Impedance, size: np.ndarray, topology: str,
    found: np.ndarray, ohms: np.ndarray, taus: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Of circuits (n, 6) that were moved and those with one term instead of two, the nearest to z, and how near (n,).

    A term that the noise hides may have no place near the grid.
    """
    total = ohms[:, :2].sum(axis=1)
    mean = np.exp((ohms[:, :2] * np.log(taus)).sum(axis=1) / np.maximum(total, 1e-9))
    several = [found]
    for r, tau in ((ohms[:, 0], taus[:, 0]), (ohms[:, 1], taus[:, 1]), (total, mean)):
        one = np.stack([r, 0 * r, ohms[:, 2]], axis=1)
        several.append(_circuits(one, np.stack([tau, tau], axis=1), topology)[0])
    made = (impedance(p[:, :5], frequencies, topology, p[:, 5]) for p in several)
    misses = [(np.abs((own - z) / size) ** 2).sum(axis=1) for own in made]
    best, rows = np.argmin(misses, axis=0), np.arange(len(z))
    return np.stack(several)[best, rows], np.stack(misses)[best, rows]
