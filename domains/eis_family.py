"""Circuits that one spectrum cannot tell apart: other shunts of a parallel circuit, exactly, and fits along a value."""

import numpy as np

from domains.eis import HIGHEST, LOWEST, NAMES, check_topology, impedance
from domains.eis_fit import levenberg_marquardt
from domains.eis_spectrum import HALF_CELL
from runtime.errors import UsageError

NOISE = 4.0  # growth of chi squared that counts as within the noise: two standard deviations
LOW, HIGH = LOWEST / HALF_CELL, HIGHEST * HALF_CELL  # of the continuous prior
PATIENCE = 15  # steps of the fits
STEPS = 16  # values along the prior's range, and again inside the last steps at either end


def other_shunts(parameters: np.ndarray, shunts: np.ndarray) -> np.ndarray:
    """The parallel circuits with other Rsh (M,) ohm that have the same impedance as `parameters` (5,), (M, 5).

    1 / (Za + Zb) becomes larger by 1 / Rsh_old - 1 / Rsh_new; its two poles and residues are the new membranes, in the
    old order of time constants. All are positive for every Rsh above TER and only there, since the admittance of
    resistors and capacitors stays one while what is left at 0 Hz is positive. Raises UsageError at or below TER.
    """
    rsh, ra, rb, ca, cb = np.asarray(parameters, float)
    shunts = np.asarray(shunts, float)
    ta, tb = ra * ca, rb * cb
    least = 1 / (1 / rsh + 1 / (ra + rb))
    if (shunts <= least).any():
        raise UsageError(f"shunts of the same spectrum lie above TER = {least:g} ohm, got {shunts.min():g}.")
    # Za + Zb = (n0 + n1 s) / (1 + d1 s + d2 s^2); with the change y of the admittance the denominator grows by
    # y (n0 + n1 s)
    n0, n1, d1, d2 = ra + rb, ra * tb + rb * ta, ta + tb, ta * tb
    y = 1 / rsh - 1 / shunts
    scale = 1 + y * n0
    n0, n1, d1, d2 = n0 / scale, n1 / scale, (d1 + y * n1) / scale, d2 / scale
    slow = (d1 + np.sqrt(np.maximum(d1**2 - 4 * d2, 0))) / 2
    fast = d2 / slow
    with np.errstate(divide="ignore", invalid="ignore"):  # equal time constants are one membrane
        r_slow = np.where(slow > fast, (n1 - n0 * slow) / (fast - slow), n0 / 2)
    r_slow, r_fast = np.maximum(r_slow, 0), np.maximum(n0 - r_slow, 0)
    with np.errstate(divide="ignore"):
        slow_first = [shunts, r_slow, r_fast, slow / r_slow, fast / r_fast]
    order = [0, 1, 2, 3, 4] if ta > tb else [0, 2, 1, 4, 3]
    return np.stack([slow_first[i] for i in order], axis=-1)


def ridge(parameters: np.ndarray, points: int = 2401) -> np.ndarray:
    """The parallel circuits with the same impedance as `parameters` (5,), itself in their middle, (points, 5).

    They are equally far apart in ln((Ra + Rb) / Rsh), which is symmetric in the shunt and what it shunts, from e^-16
    to e^16 times as much as at `parameters`.
    """
    parameters = np.asarray(parameters, float)
    rest = parameters[1] + parameters[2]
    least = parameters[0] * rest / (parameters[0] + rest)
    own = np.log(rest / parameters[0])
    shares = own + np.linspace(-16, 16, points)  # the middle is the circuit itself
    found = other_shunts(parameters, least * (1 + np.exp(-shares)))
    found[points // 2] = parameters
    return found


def within_prior(circuits: np.ndarray) -> np.ndarray:
    """Which circuits (M, 5) lie within the continuous prior, (M,) bool."""
    return np.all((circuits >= LOW) & (circuits <= HIGH), axis=1)


def profile(
    parameters: np.ndarray, name: str, frequencies: np.ndarray, topology: str, level: float,
    known: tuple[str, ...] = (), rs: float = 0.0, rs_free: bool = False, along: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Circuits (M, 5) ascending in `name` that fit the spectrum of `parameters` (5,) within noise of size `level`.

    At values of `name` along the prior the others but those in `known` are fitted again, within the prior; kept are
    the circuits around `parameters`, without a gap, whose chi squared is below NOISE. along: d ln p / d ln p[name]
    (5,), from where the fits start.
    """
    check_topology(topology)
    parameters = np.asarray(parameters, float)
    at, z = NAMES.index(name), impedance(parameters, frequencies, topology, rs)
    along = (np.arange(5) == at).astype(float) if along is None else along
    held = {other: parameters[NAMES.index(other)] for other in known}

    def fitted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        start = np.clip(parameters * (values[:, None] / parameters[at]) ** along, LOW, HIGH)
        fit = levenberg_marquardt(frequencies, z, start, topology, held | {name: values}, None if rs_free else rs,
                                  PATIENCE, HALF_CELL)  # fmt: skip
        return fit.parameters, fit.variance * max(2 * len(z) - len(fit.free), 1) / level**2 < NOISE

    values = np.unique(np.r_[np.geomspace(LOW[at], HIGH[at], STEPS), parameters[at]])
    circuits, good = fitted(values)
    own = int(np.searchsorted(values, parameters[at]))
    circuits[own], good[own] = parameters, True
    first, last = _run(good, own)
    finer = [np.geomspace(values[i], values[j], STEPS // 2 + 2)[1:-1]
             for i, j in ((first - 1, first), (last, last + 1)) if 0 <= i and j < len(values)]  # fmt: skip
    if finer:
        more, fits = fitted(np.concatenate(finer))
        circuits, good = np.concatenate([circuits, more]), np.r_[good, fits]
        order = np.argsort(circuits[:, at], kind="stable")
        circuits, good = circuits[order], good[order]
        first, last = _run(good, int(np.argmin(np.abs(np.log(circuits[:, at] / parameters[at])))))
    return circuits[first : last + 1]


def _run(good: np.ndarray, own: int) -> tuple[int, int]:
    """First and last of the unbroken row of True around `own`."""
    bad = np.nonzero(~good)[0]
    return int(bad[bad < own].max(initial=-1)) + 1, int(bad[bad > own].min(initial=len(good))) - 1
