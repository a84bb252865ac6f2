"""Where fits of circuits to spectra start: both time constants from a list of them, the resistances by least squares.

Z = R0 + R1 / (1 + jw tau1) + R2 / (1 + jw tau2) is a series circuit, and a parallel one (domains.eis_shunt) after a
series resistance R0. Given the time constants it is linear. All pairs of a list of them are tried at once, the first
of a pair with the derivative of its term beside it: a time constant a little off the list would else hide a term that
is smaller than what that costs. Then the ratio of polynomials that Z is gets fitted, once, with the denominator of the
pair as a weight (Levy 1959, IRE Trans. Autom. Control 4, 37; Sanathanan and Koerner 1963, IEEE Trans. Autom. Control
8, 56), which finds terms of .1% but follows noise; the start that is nearer to the spectrum counts.
"""

from typing import Any

import numpy as np

from domains.eis import CELL, ENDS, HIGHEST, LOWEST, Impedance, check_topology, from_places
from domains.eis_ratio import Ratios
from domains.eis_shunt import with_shunt
from runtime.errors import UsageError

LISTED = 16  # time constants
MARGIN = 0.5  # ln of how far they reach beyond the inverse angular frequencies
SHIFT = 0.75  # of the distance between two of them, the farthest that the derivative moves one
SPLIT = 1.1  # two terms where the spectrum shows one: apart from its time constant by this factor
SHUNTS = np.exp(np.linspace(-5, 3, 9))  # Rsh / TER - 1 of the parallel circuits tried
BEYOND = 9.8  # a factor by which a start may leave the grid, a little less than a fit may
ROWS = 128  # at a time, so that their arrays stay in the processor's cache


def starts(frequencies: np.ndarray, z: Impedance, topology: str, rs: float | np.ndarray | None = 0.0) -> np.ndarray:
    """Circuits (N, 6) near spectra z (N, F) at frequencies (F,) in Hz, Rs last, for `levenberg_marquardt`.

    rs: the series resistance in ohm, a number or (N,), or None for parallel circuits of which it is not known. Raises
    UsageError for series circuits without it, where Rs and Rsh are one resistance.
    """
    check_topology(topology)
    if rs is None and topology == "series":
        raise UsageError("in a series circuit Rs and Rsh are one resistance: give Rs.")
    w = 2 * np.pi * np.asarray(frequencies, float)
    given = np.broadcast_to(np.asarray(0.0 if rs is None else rs, float), len(z))
    seen = np.asarray(z) - given[:, None]
    listed = Listed(w, constant=topology == "series" or rs is None)
    found = np.concatenate([_block(listed, seen[i : i + ROWS], topology) for i in range(0, len(z), ROWS)])
    found[:, 5] += given
    return found


def _block(listed: "Listed", z: Impedance, topology: str) -> np.ndarray:
    w, constant = listed.w, listed.constant
    pair = listed.pairs(z)
    found, least = np.empty((len(z), 6)), np.full(len(z), np.inf)
    for taus in (pair, rational(w, z, pair, constant)):
        circuits = _circuits(resistances(w, z, taus, constant), taus, topology)
        real, imaginary = Ratios(circuits[:, :5], w / (2 * np.pi), topology).parts()
        off, across = real + circuits[:, 5:] - z.real, imaginary - z.imag
        squares = ((off * off + across * across) / (z.real**2 + z.imag**2)).sum(axis=1)
        better = squares < least
        found[better], least[better] = circuits[better], squares[better]
    return found


class Listed:
    """Time constants equally far apart in logarithm, and their terms 1 / (1 + jw tau) at angular frequencies w (F,).

    constant: whether a resistance is in series with the terms.
    """

    def __init__(self, w: np.ndarray, constant: bool):
        self.w, self.constant = w, constant
        ends = np.log(w.max()) + MARGIN, np.log(w.min()) - MARGIN
        self.taus, self.apart = np.exp(-np.linspace(*ends, LISTED)), (ends[0] - ends[1]) / (LISTED - 1)
        x = w[:, None] * self.taus
        term = 1 / (1 + 1j * x)
        terms: Any = np.concatenate([term, -1j * x * term**2], axis=1)  # beside d / d ln tau, (F, 2 K)
        products = (term.conj()[:, :, None] * terms[:, None]).real.reshape(len(w), -1)
        # single precision: the list is coarser than that
        parts = terms.real, terms.imag, products, np.abs(terms[:, LISTED:]) ** 2
        self.real, self.imaginary, self.products, self.steep = (part.astype(np.float32) for part in parts)

    def pairs(self, z: Impedance) -> np.ndarray:
        """The best two time constants (N, 2) in s of spectra z (N, F), the first moved off the list.

        Least squares of (Z_model - Z) / |Z| for every pair (second q, first p), with no resistance below 0.
        """
        count, k = len(z), LISTED
        square = z.real**2 + z.imag**2
        size = np.sqrt(square[:, :1])  # as a unit
        weight, real, imaginary = (part.astype(np.float32) for part in (
            size * size / square, size * z.real / square, size * z.imag / square))  # fmt: skip
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
        first, moved = alone[0] - hh * second, alone[1] - gg * second
        possible = (second > 0) & (first > 0) & (np.abs(moved) <= SHIFT * self.apart * first)
        gain = np.where(possible, alone[0] * bp + alone[1] * bd + rest * second, 0)
        best = gain.reshape(count, -1).argmax(axis=1)
        q, p, rows = best // k, best % k, np.arange(count)
        own = first[rows, q, p]
        ratio = moved[rows, q, p] / np.where(own > 0, own, 1)
        reach = SHIFT * self.apart
        return np.stack([self.taus[p] * np.exp(np.clip(ratio, -reach, reach)), self.taus[q]], axis=1)


def rational(w: np.ndarray, z: Impedance, taus: np.ndarray, constant: bool) -> np.ndarray:
    """Time constants (N, 2) in s of the ratio of polynomials in jw nearest to spectra z (N, F), linearised.

    What is minimised is |N - Z D| / |Z D0|, D0 being the denominator of `taus` (N, 2). Poles that no circuit has
    become two equal ones.
    """
    unit = np.sqrt(w.min() * w.max())
    x = w / unit
    square = z.real**2 + z.imag**2
    below = (1 + (x * taus[:, :1] * unit) ** 2) * (1 + (x * taus[:, 1:] * unit) ** 2)
    powers = x[:, None] ** np.arange(5)
    one, size = (1 / (square * below)) @ powers, (1 / below) @ powers
    real, imaginary = (z.real / (square * below)) @ powers, (z.imag / (square * below)) @ powers
    nothing = np.zeros_like(one)
    kinds = {(0, 0): (one, nothing), (0, 1): (real, imaginary), (1, 0): (real, -imaginary), (1, 1): (size, nothing)}
    # the columns (jx)^k, without and with Z, last what they are to give: Z itself
    columns = [(k, 0) for k in range(3 if constant else 2)] + [(1, 1), (2, 1), (0, 1)]
    gram = np.empty((len(z), len(columns), len(columns)))
    for i, (k, own) in enumerate(columns):
        for j, (m, other) in enumerate(columns):
            re, im = kinds[own, other]
            gram[:, i, j] = (re, -im, -re, im)[(m - k) % 4][:, k + m]
    scale = np.sqrt(np.einsum("nii->ni", gram))
    gram /= scale[:, :, None] * scale[:, None]
    solved = _solved(gram[:, :-1, :-1], gram[:, :-1, -1], 1e-10) * scale[:, -1:] / scale[:, :-1]
    b, c = -solved[:, -2], -solved[:, -1]  # Z = N - (b jx + c (jx)^2) Z
    root = np.sqrt(np.maximum(b * b - 4 * c, 0))
    equal = np.abs(b) / 2
    large = np.where(root > 0, (b + root) / 2, equal * SPLIT)
    small = np.where(root > 0, c / np.where(large == 0, 1, large), equal / SPLIT)
    low, high = 1e-2 / x.max(), 1e2 / x.min()
    large = np.clip(large, SPLIT * low, high)
    return np.stack([np.clip(small, low, large / 1.02), large], axis=1) / unit


def resistances(w: np.ndarray, z: Impedance, taus: np.ndarray, constant: bool) -> np.ndarray:
    """R1, R2, R0 (N, 3) in ohm of time constants (N, 2), 0 or above, by least squares of (Z_model - Z) / |Z|.

    constant: False keeps R0 at 0.
    """
    weight = 1 / (z.real**2 + z.imag**2)
    x, y = w * taus[:, :1], w * taus[:, 1:]
    first, second = 1 / (1 + x * x), 1 / (1 + y * y)  # real parts, and |term|^2
    real, imaginary, w1 = weight * z.real, weight * z.imag, weight * first
    cross = w1 * second
    k = 3 if constant else 2
    gram, b = np.empty((len(z), k, k)), np.empty((len(z), k))
    gram[:, 0, 0], gram[:, 1, 1] = w1.sum(axis=1), _dot(weight, second)
    gram[:, 0, 1] = gram[:, 1, 0] = cross.sum(axis=1) + _dot(cross * x, y)
    b[:, 0] = _dot(real, first) - _dot(imaginary * x, first)
    b[:, 1] = _dot(real, second) - _dot(imaginary * y, second)
    if constant:
        gram[:, 2, :2] = gram[:, :2, 2] = np.einsum("nii->ni", gram)[:, :2]
        gram[:, 2, 2], b[:, 2] = weight.sum(axis=1), real.sum(axis=1)
    scale = np.sqrt(np.einsum("nii->ni", gram))
    gram, b = gram / (scale[:, :, None] * scale[:, None]), b / scale
    found = _solved(gram, b, 1e-12)
    rows = np.flatnonzero((found <= 0).any(axis=1))
    if len(rows):
        found[rows] = _kept(gram[rows], b[rows])
    found /= scale
    return found if constant else np.concatenate([found, np.zeros((len(z), 1))], axis=1)


def _kept(gram: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The best least squares (N, K) that leave one or more of K columns out and are not below 0 in the others."""
    found, most = np.zeros(b.shape), np.full(len(b), -np.inf)
    choices = [[0, 1], [0, 2], [1, 2], [0], [1]] if b.shape[1] == 3 else [[0], [1]]
    for chosen in choices:
        some = _solved(gram[:, chosen][:, :, chosen], b[:, chosen], 1e-12)
        gain = np.where((some > 0).all(axis=1), (some * b[:, chosen]).sum(axis=1), -np.inf)
        better = np.flatnonzero(gain > most)
        found[better], most[better] = 0, gain[better]
        found[better[:, None], chosen] = some[better]
    return found


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nf,nf->n", a, b)


def _solved(matrix: np.ndarray, right: np.ndarray, ridge: float) -> np.ndarray:
    return np.linalg.solve(matrix + ridge * np.eye(matrix.shape[1]), right[..., None])[..., 0]


def _circuits(ohms: np.ndarray, taus: np.ndarray, topology: str) -> np.ndarray:
    """Circuits (N, 6) with Rs last, near the grid, of resistances (N, 3), as `resistances` gives, and time constants.

    Where one term is left it is split in two; of parallel circuits the one that lies most inside of the grid counts.
    """
    one = ohms[:, :2].min(axis=1) <= 0
    most, own = np.maximum(ohms[:, :2].max(axis=1), 1e-9), np.where(ohms[:, 0] >= ohms[:, 1], *taus.T)
    r = np.where(one[:, None], most[:, None] / 2, ohms[:, :2])
    taus = np.where(one[:, None], own[:, None] * [1 / SPLIT, SPLIT], taus)
    low, high = np.log(LOWEST / BEYOND), np.log(HIGHEST * BEYOND)
    membranes = np.concatenate([r, taus / r], axis=1)
    if topology == "series":
        found = np.log(np.concatenate([np.maximum(ohms[:, 2:], 1e-9), membranes], axis=1))
        return np.concatenate([np.exp(np.clip(found, low, high)), np.zeros((len(r), 1))], axis=1)
    many = with_shunt(membranes[:, None], r.sum(axis=1)[:, None] * (1 + SHUNTS))
    many = np.log(np.where(many > 0, many, np.inf))
    ends = [np.log(from_places(np.full(5, end))) for end in ENDS]
    outside = np.maximum(ends[0] - many, 0) ** 2 + np.maximum(many - ends[1], 0) ** 2
    far = (outside + 1e-3 * ((many - sum(ends) / 2) / CELL) ** 2).sum(axis=-1)
    best = many[np.arange(len(r)), np.nan_to_num(far, nan=np.inf).argmin(axis=1)]
    return np.concatenate([np.exp(np.clip(best, low, high)), ohms[:, 2:]], axis=1)
