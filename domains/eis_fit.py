"""Fits of the circuit to spectra by Levenberg-Marquardt, many starts or spectra at once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from domains.eis import HIGHEST, LOWEST, NAMES, SWAP, Impedance, check_topology
from domains.eis_noise import axes
from runtime.errors import UsageError

BEYOND = 10.0  # how far from the grid's ends parameters may go, a factor
LONGEST = 2.0  # step of ln p
FIRST, EASIER, HARDER = 1e-2, 0.7, 5.0  # damping, and its factors after a good and a bad step
SMALL = 1e-7  # share of the sum of squares below which a step's gain ends the search
ROWS = 128  # at a time, so that their arrays stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Fit:
    """What a fit found, for each of N starts.

    parameters (N, 5) in the order of NAMES, rs (N,) in ohm; residual (N,): mean over frequencies of |dZ| / |Z|; steps
    (N,): tried; free: the names fitted, "Rs" last if it was; normal (N, k, k): J^T J of the relative residuals by ln p
    of the free ones (by Rs in ohm); variance (N,): of the relative residuals' real and imaginary parts.
    """

    parameters: np.ndarray
    rs: np.ndarray
    residual: np.ndarray
    steps: np.ndarray
    free: tuple[str, ...]
    normal: np.ndarray
    variance: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """Of ln p of the free parameters (Rs: in ohm), (N, k, k); huge along what the spectrum does not show."""
        scale = np.sqrt(np.maximum(np.diagonal(self.normal, axis1=1, axis2=2), 1e-300))
        values, vectors = np.linalg.eigh(self.normal / scale[:, :, None] / scale[:, None])
        values = np.maximum(values, 1e-15 * values[:, -1:])
        inverse = (vectors / values[:, None]) @ np.swapaxes(vectors, 1, 2)
        return self.variance[:, None, None] * inverse / scale[:, :, None] / scale[:, None]


def middle(count: int = 1) -> np.ndarray:
    """The middle of the grid as `count` starts (count, 5), the membranes' capacitances a factor of 10 apart.

    From equal membranes no gradient would ever tell them apart.
    """
    found = np.sqrt(LOWEST * HIGHEST) * 10.0 ** np.array([0, 0, 0, -0.5, 0.5])
    return np.tile(found, (count, 1))


def levenberg_marquardt(
    frequencies: np.ndarray, z: Impedance, start: np.ndarray, topology: str,
    known: Mapping[str, float | np.ndarray] | None = None, rs: float | np.ndarray | None = 0.0, steps: int = 100,
    beyond: float | np.ndarray = BEYOND, enough: float = 0.0, kind: str = "modulus", small: float = SMALL,
) -> Fit:  # fmt: skip
    """Least squares of (Z_model - Z) / |Z| from each start (N, 5), or (N, 6) with Rs (else 0) last, in ln p.

    kind: of noise (domains.eis_noise), whose axes at Z weigh the two parts of that, "modulus" alike.

    frequencies: (F,) or (N, F) in Hz; z: (F,) for one spectrum or (N, F) for one each. known: values held, by name,
    numbers or (N,). rs: the series resistance in ohm, a number or (N,), or None to fit it too, from 0 up. beyond: how
    far outside the grid parameters may go, a factor or (5,). enough: sum of squares at which a row stops; small:
    share of it that a step must gain for another. Raises UsageError for unknown names, or when Rs and a series Rsh,
    which are one resistance, are both free.
    Source: Marquardt 1963, J. SIAM 11, 431, damping by the diagonal; parameters at a bound that push outwards are held.
    """
    check_topology(topology)
    known = dict(known or {})
    if not set(known) <= set(NAMES):
        raise UsageError(f"known parameters are among {', '.join(NAMES)}, got {', '.join(sorted(known))}.")
    if rs is None and topology == "series" and "Rsh" not in known:
        raise UsageError("in a series circuit Rs and Rsh are one resistance: give Rsh or Rs to fit the other.")
    start = np.array(start, float, ndmin=2)
    count = len(start)
    for name, value in known.items():
        start[:, NAMES.index(name)] = value
    free = [i for i, name in enumerate(NAMES) if name not in known] + ([5] if rs is None else [])
    z = np.asarray(z, np.complex128)
    z = np.broadcast_to(z, (count, z.shape[-1]))
    w = np.broadcast_to(2 * np.pi * np.asarray(frequencies, float), z.shape)
    q = np.zeros((count, 6))
    q[:, :5] = np.log(start[:, :5])
    q[:, 5] = rs if rs is not None else start[:, 5] if start.shape[1] == 6 else 0
    blocks = [slice(i, i + ROWS) for i in range(0, count, ROWS)]
    bounds = np.log([LOWEST / beyond, HIGHEST * beyond])
    low, high = np.append(bounds[0], 0.0)[free], np.append(bounds[1], np.inf)[free]
    longest = np.array([LONGEST if i < 5 else np.inf for i in free])
    search = Search(low, high, longest, enough=enough, small=small)
    steps = steps if free else 0
    parts = [Residuals(z[rows], w[rows], topology, free, kind).fit(q[rows], steps, search) for rows in blocks]
    q, residual, tried, normal, squares = (np.concatenate(part) for part in zip(*parts, strict=True))
    names = tuple((*NAMES, "Rs")[i] for i in free)
    variance = squares / max(2 * z.shape[1] - len(free), 1)
    return Fit(np.exp(q[:, :5]), q[:, 5], residual, tried, names, normal, variance)


def fit_from_middle(
    frequencies: np.ndarray, z: Impedance, topology: str, known: Mapping[str, float | np.ndarray] | None = None,
    rs: float | np.ndarray | None = 0.0, steps: int = 100,
) -> Fit:  # fmt: skip
    """The fit (N,) of spectra z (N, F) from the middle of the grid, its arguments those of `levenberg_marquardt`.

    When something is known of the membranes it matters which of the two is the quicker one: both orders are tried and
    the one that fits better is kept (one order alone ends in a wrong minimum for one spectrum in five).
    """
    start = middle(len(z))
    found = levenberg_marquardt(frequencies, z, start, topology, known, rs, steps)
    if not set(known or {}) & set(NAMES[1:]):
        return found
    other = levenberg_marquardt(frequencies, z, start[:, SWAP], topology, known, rs, steps)
    rows = np.flatnonzero(other.variance < found.variance)
    return replaced(found, rows, other, rows)


def replaced(fit: Fit, rows: np.ndarray, by: Fit, of: np.ndarray | slice = slice(None)) -> Fit:
    """`fit` with some rows of another fit of the same free parameters, its rows `of`, in the place of `rows`."""
    changed = {}
    for name in ("parameters", "rs", "residual", "steps", "normal", "variance"):
        changed[name] = getattr(fit, name).copy()
        changed[name][rows] = getattr(by, name)[of]
    return replace(fit, **changed)


@dataclass(frozen=True, eq=False)
class Search:
    """How `Residuals.fit` goes on, for the k free parameters.

    low, high (k,): ends; longest (k,): step. first, easier, harder: damping, its factors after a good and a bad step. A
    row is done at a sum of squares of `enough`, or after a step that gains less than `settled` and the share `small` of
    the sum. levels: None minimises the sum of squares; two relative noise levels minimise that over the level's square,
    the level being what the sum says, between them. stay (k,): of a normal prior about the start, 1 / variance.
    """

    low: np.ndarray
    high: np.ndarray
    longest: np.ndarray
    first: float = FIRST
    easier: float = EASIER
    harder: float = HARDER
    enough: float = 0.0
    settled: float = np.inf
    small: float = SMALL
    levels: tuple[float, float] | None = None
    stay: np.ndarray | float = 0.0

    def level(self, squares: np.ndarray, points: int) -> np.ndarray:
        """The noise level (n,) of sums of squares (n,) over `points` real and imaginary parts."""
        return np.clip(np.sqrt(squares / points), *self.levels) if self.levels else np.ones(len(squares))


class Residuals:
    """Relative residuals of rows: spectra z (n, F) at angular frequencies w (n, F), some of ln p and Rs (5) free.

    kind: of noise; its axes at z weigh the residuals' two parts in sums of squares, modulus noise's alike.
    q (n, 6) is ln p and Rs in ohm. Memory is reused: what `linearised` gives are new arrays all the same.
    """

    def __init__(self, z: Impedance, w: np.ndarray, topology: str, free: list[int], kind: str = "modulus"):
        self.weight = 1 / np.abs(z)
        self.turn = self.scale = None
        if kind != "modulus":
            self.turn, along, across = axes(z, kind)
            self.scale = np.stack([along, across], axis=-1) / self.weight[..., None]
        self.goal, self.w, self.topology, self.free = z * self.weight, w, topology, free
        self.space = np.empty((len(z), 6 if 5 in free else 5, z.shape[1]), np.complex128)

    def fit(self, q: np.ndarray, steps: int, search: Search) -> tuple[np.ndarray, ...]:
        """Best q, mean |dZ| / |Z|, steps tried, J^T J and the sum of squares from q (n, 6)."""
        n, free, points = len(q), self.free, 2 * self.w.shape[1]
        q = q.copy()
        start = q[:, free]
        q[:, free] = np.clip(start, search.low, search.high)
        residual, squares, normal, gradient = self.linearised(q, slice(None))
        damping, tried, rows = np.full(n, search.first), np.zeros(n, int), np.nonzero(squares > search.enough)[0]
        for _ in range(steps):
            if not len(rows):
                break
            at = slice(None) if len(rows) == n else rows
            here, weight = q[at][:, free], search.level(squares[at], points) ** -2.0
            away = here - start[at]
            pull = gradient[at] * weight[:, None] + away * search.stay
            step, hoped = damped(search, here, normal[at] * weight[:, None, None], pull, damping[at])
            new = q[at].copy()
            new[:, free] = np.clip(here + step, search.low, search.high)
            found = self.linearised(new, at)
            farther = (((new[:, free] - start[at]) ** 2 - away**2) * search.stay).sum(axis=1)
            gain = (squares[at] - found[1]) * weight - farther
            better = gain > 0
            little = np.minimum(search.settled, search.small * squares[at] * weight)
            done = better & (gain < little) & (hoped < little)
            tried[at] += 1
            damping[at] *= np.where(better, search.easier, search.harder)
            kept = rows[better]
            q[kept] = new[better]
            for old, fresh in zip((residual, squares, normal, gradient), found, strict=True):
                old[kept] = fresh[better]
            rows = rows[~done & (damping[rows] < 1e8) & (squares[rows] > search.enough)]
        return q, residual, tried, normal, squares

    def linearised(self, q: np.ndarray, at) -> tuple[np.ndarray, ...]:
        """At q (n, 6): mean |r|, and (weighed) |r|^2, J^T J, J^T r of the residuals r = (Z_model - Z) / |Z|."""
        weight, goal, w = self.weight[at], self.goal[at], self.w[at]
        p = np.exp(q[:, :5])
        rsh, r = p[:, :1], p[:, 1:3, None]
        x = w[:, None] * (r * p[:, 3:5, None])
        inverse = np.empty(x.shape, np.complex128)  # 1 / u of u = 1 + jw R C, of both membranes, (n, 2, F)
        inverse.real = 1 / (1 + x * x)
        inverse.imag = -x * inverse.real
        membranes = inverse * r
        both = membranes[:, 0] + membranes[:, 1]
        jacobian = self.space[: len(q)]
        if self.topology == "series":
            z, by_both = both + rsh, weight
            np.multiply(rsh, weight, out=jacobian[:, 0])
        else:
            total = both + rsh
            h = total.conj() * (rsh / (total.real**2 + total.imag**2))  # Rsh / (Rsh + Za + Zb)
            rest = 1 - h
            z, by_both = rest * rsh, h * h * weight
            np.multiply(z, rest * weight, out=jacobian[:, 0])
        membranes *= by_both[:, None]
        np.multiply(membranes, inverse, out=jacobian[:, 1:3])  # dZ / d ln R = R / u^2
        np.subtract(jacobian[:, 1:3], membranes, out=jacobian[:, 3:5])  # dZ / d ln C = R / u^2 - R / u
        if jacobian.shape[1] == 6:
            jacobian[:, 5] = weight
        off = (z + q[:, 5:]) * weight - goal
        residual = np.abs(off).mean(axis=1)
        if self.turn is not None and self.scale is not None:
            jacobian *= self.turn[at][:, None]
            off *= self.turn[at]
            for part, scale in ((jacobian, self.scale[at][:, None]), (off, self.scale[at])):
                pairs = part.view(np.float64).reshape(*part.shape, 2)
                pairs *= scale
        real, flat = jacobian.view(np.float64), off.view(np.float64)
        normal = real @ np.swapaxes(real, 1, 2)
        gradient = (real @ flat[..., None])[..., 0]
        free = self.free
        return (residual, np.einsum("nf,nf->n", flat, flat), normal[:, free][:, :, free],
                gradient[:, free])  # fmt: skip


def damped(
    search: Search, here: np.ndarray, normal: np.ndarray, pull: np.ndarray, damping: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The damped step (n, k) from here (n, k), and how much it should lower what is minimised, (n,).

    normal (n, k, k), pull (n, k): half the second and first derivatives, the first without and the second with the
    prior's.
    """
    held = (here <= search.low) & (pull > 0) | (here >= search.high) & (pull < 0)
    diagonal = np.einsum("nii->ni", normal) + search.stay
    diagonal = diagonal + 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300
    matrix = normal * ~(held[:, :, None] | held[:, None])
    np.einsum("nii->ni", matrix)[:] = np.where(held, 1.0, diagonal * (1 + damping[:, None]))
    right = np.where(held, 0.0, -pull)
    step = np.linalg.solve(matrix, right[..., None])[..., 0]
    step /= np.maximum((np.abs(step) / search.longest).max(axis=1, keepdims=True), 1)
    return step, np.abs((right * step).sum(axis=1))
