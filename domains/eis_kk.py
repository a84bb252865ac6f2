"""Kramers-Kronig check of a measured spectrum: could one linear, causal and stable system have given it?

What it finds of resistances that drift by 20% during a sweep (50 points, 1 Hz to 1 MHz, circuits all over the grid):
all at 0.1% noise, 93% (series) and 51% (parallel) at 1%, hardly any at 5%; of clean spectra it refuses up to 1%.
Fewer than about 4 points a decade are too few for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from domains.eis import Impedance
from domains.eis_spectrum import Spectrum, scatter
from runtime.one_thread import one_thread

LEAST, MOST = 3, 50  # RC elements
FINE = 0.002  # rms relative residual that is too small to matter, whatever its structure
LUCK = 2.5  # structure that chance may give, in units of 1 / sqrt(2 F)
FEW = 16  # elements up to which the fits are made at once, by normal equations
WEAK = 1e6  # trace of their inverse beyond which they lose digits; up to it residuals are right to 3e-9


@dataclass(frozen=True, eq=False)
class KramersKronig:
    """What the check found.

    residuals: (Z - Z_fit) / |Z|, (F,) complex; mu: 1 - (sum of the negative R_k over that of the positive ones), near
    1 where there are too few elements and low where they begin to fit noise; elements: RC elements of the fit; error:
    root mean square of the residuals' parts, corrected for what was fitted; structure: error over the scatter between
    neighbouring points, 1 for residuals that are noise alone; passes; sentence: the verdict in plain words.
    """

    residuals: Impedance
    mu: float
    elements: int
    error: float
    structure: float
    passes: bool
    sentence: str


@one_thread()
def lin_kk(spectrum: Spectrum, c: float = 0.85, inductor: bool = True, capacitor: bool = False) -> KramersKronig:
    """Fits R + sum_k R_k / (1 + jw tau_k) (+ jwL) (+ 1 / (jwC)), which obeys the relations, and looks at what is left.

    The tau_k are fixed, equally far apart in logarithm from 1 / w_max to 1 / w_min; real and imaginary part are fitted
    together, weighted by 1 / |Z|. As in the source the number of elements grows until mu <= c; beyond it, it grows on
    while neighbouring residuals are alike, because with a few time constants far apart mu falls long before the fit is
    good (clean parallel circuits: residuals of 12% at that point). The spectrum passes if some fit leaves residuals
    that scatter like noise, or less than 0.2%.
    Source: Schoenleber, Klotz, Ivers-Tiffee 2014, Electrochimica Acta 131, 20, equations 4 to 11.
    """
    frequencies, size = spectrum.frequencies, np.abs(spectrum.z)
    limit = 1 + LUCK / np.sqrt(2 * len(size))
    tried, good = [], []
    for fit in fits(frequencies, spectrum.z, inductor, capacitor):
        error, structure, _, mu, _ = fit
        tried.append(fit)
        if structure <= limit or error <= FINE:
            good.append(fit)
            if mu <= c:
                break
    passes = bool(good)
    if passes:
        error, structure, residuals, mu, elements = good[-1] if good[-1][3] <= c else good[0]
    else:
        error, structure, residuals, mu, elements = min(tried, key=lambda fit: fit[0])
    worst = int(np.argmax(np.abs(residuals)))
    about = (f"residuals of {100 * error:.2g}% (rms), at most {100 * abs(residuals[worst]):.2g}% at "
             f"{frequencies[worst]:.3g} Hz, with {elements} RC elements")  # fmt: skip
    sentence = (
        f"The spectrum obeys the Kramers-Kronig relations: {about}, are like noise or too small to matter."
        if passes
        else f"The spectrum breaks the Kramers-Kronig relations (the cell may have drifted, or it is not linear or not "
        f"stable): {about}, are {structure:.2g} times the scatter of neighbouring points."
    )
    return KramersKronig(residuals, mu, elements, error, structure, passes, sentence)


def counts(most: int) -> list[int]:
    """Numbers of elements to try: every one up to 10, then in steps of a fifth."""
    found = [LEAST]
    while found[-1] < most:
        found.append(min(most, found[-1] + max(1, found[-1] // 5)))
    return found


def fits(
    frequencies: np.ndarray, z: Impedance, inductor: bool, capacitor: bool
) -> Iterator[tuple[float, float, Impedance, float, int]]:
    """error, structure, residuals (F,), mu and elements of `KramersKronig` for the `counts` of a spectrum (F,)."""
    numbers, shared = counts(min(MOST, len(z))), 1 + inductor + capacitor
    few = [number for number in numbers if number <= FEW]
    residuals, mu, sound = few_fits(frequencies, z, few, inductor, capacitor)
    error, structure = _size(residuals, np.array(few) + shared)
    for i, number in enumerate(numbers):
        if number <= FEW and sound[i]:
            yield float(error[i]), float(structure[i]), residuals[i], float(mu[i]), number
        else:
            left, ratio = rc_fit(frequencies, z, number, inductor, capacitor)
            own = _size(left, number + shared)
            yield float(own[0]), float(own[1]), left, ratio, number


def rc_fit(
    frequencies: np.ndarray, z: Impedance, elements: int, inductor: bool = True, capacitor: bool = False
) -> tuple[Impedance, float]:
    """Relative residuals (F,) and mu of the least-squares fit with so many RC elements."""
    rows, norm, goal = _basis(frequencies, z, [elements], inductor, capacitor)
    values = np.linalg.lstsq(rows.T, goal, rcond=None)[0]
    left = goal - values @ rows
    return left[: len(z)] + 1j * left[len(z) :], float(_mu((values / norm)[-elements:]))


def few_fits(
    frequencies: np.ndarray, z: Impedance, numbers: list[int], inductor: bool, capacitor: bool
) -> tuple[Impedance, np.ndarray, np.ndarray]:
    """Residuals (n, F) and mu (n,) of `rc_fit` for n numbers of elements, and where their digits can be relied on."""
    rows, norm, goal = _basis(frequencies, z, numbers, inductor, capacitor)
    count, each, most = len(rows), np.array(numbers), max(numbers)
    shared, own, ends = count - each.sum(), np.arange(most), np.cumsum(each)
    # which unknowns a fit has; those from `count` on fill up to the most elements, each 0 for itself
    place = np.where(own < each[:, None], count - ends[-1] + (ends - each)[:, None] + own, count + own)
    place = np.concatenate([np.tile(np.arange(shared), (len(each), 1)), place], axis=1)
    normal, right, scale = np.eye(count + most), np.zeros(count + most), np.ones(count + most)
    normal[:count, :count], right[:count], scale[:count] = rows @ rows.T, rows @ goal, norm
    sound = np.zeros(len(each), bool)
    try:
        inverse = np.linalg.inv(normal[place[:, :, None], place[:, None]])
    except np.linalg.LinAlgError:
        return np.zeros((len(each), len(z)), complex), np.zeros(len(each)), sound
    found = (inverse @ right[place][..., None])[..., 0]
    values = np.zeros((len(each), count + most))
    values[np.arange(len(each))[:, None], place] = found
    left = goal - values[:, :count] @ rows
    least = np.diagonal(inverse, axis1=1, axis2=2)
    sound |= (least > 0).all(axis=1) & (least.sum(axis=1) < WEAK)
    return left[:, : len(z)] + 1j * left[:, len(z) :], _mu((found / scale[place])[:, shared:]), sound


def _basis(
    frequencies: np.ndarray, z: Impedance, numbers: list[int], inductor: bool, capacitor: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is fitted: rows (K, 2 F) of length 1, real parts before imaginary ones, their lengths (K,), the goal (2 F,).

    R, L and C come first, then the RC elements of each of the numbers.
    """
    w, share = 2 * np.pi * frequencies, 1 / np.abs(z)
    count, shared = len(w), 1 + inductor + capacitor
    ends = np.log([w.max(), w.min()])
    place = np.concatenate([np.arange(number) / (number - 1) for number in numbers])
    x = np.exp(-ends[0] - (ends[1] - ends[0]) * place)[:, None] * w
    rows = np.zeros((shared + len(x), 2 * count))
    rows[0, :count] = share
    if inductor:
        rows[1, count:] = w * share
    if capacitor:
        rows[shared - 1, count:] = -share / w
    real, imaginary = rows[shared:, :count], rows[shared:, count:]
    np.divide(share, 1 + x * x, out=real)
    np.multiply(real, -x, out=imaginary)
    norm = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows /= norm[:, None]
    return rows, norm, np.concatenate([z.real * share, z.imag * share])


def _mu(resistances: np.ndarray) -> np.ndarray:
    """1 less the sum of the negative ones over that of the positive ones, (...) of resistances (..., K)."""
    positive = np.maximum(resistances, 0).sum(axis=-1)
    negative = positive - resistances.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(positive > 0, 1 - negative / positive, -np.inf)


def _size(residuals: Impedance, fitted: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square (...) of the parts of residuals (..., F), corrected for the numbers fitted, and over `scatter`.

    fitted: how many, (...). The ratio is 1 for white noise.
    """
    parts = np.stack([residuals.real, residuals.imag], axis=-2)
    error = np.sqrt(np.sum(parts**2, axis=(-2, -1)) / np.maximum(2 * parts.shape[-1] - fitted, 1))
    return error, error / np.maximum(scatter(parts, (-2, -1)), 1e-300)
