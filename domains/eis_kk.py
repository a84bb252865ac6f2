"""Kramers-Kronig check of a measured spectrum: could one linear, causal and stable system have given it?

What it finds of resistances that drift by 20% during a sweep (50 points, 1 Hz to 1 MHz, circuits all over the grid):
all at 0.1% noise, 93% (series) and 51% (parallel) at 1%, hardly any at 5%; of clean spectra it refuses up to 1%.
Fewer than about 4 points a decade are too few for it.
"""

from dataclasses import dataclass

import numpy as np

from domains.eis import Impedance
from domains.eis_spectrum import Spectrum, scatter

LEAST, MOST = 3, 50  # RC elements
FINE = 0.002  # rms relative residual that is too small to matter, whatever its structure
LUCK = 2.5  # structure that chance may give, in units of 1 / sqrt(2 F)


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
    fits, good = [], []
    for elements in counts(min(MOST, len(size))):
        residuals, mu = rc_fit(frequencies, spectrum.z, elements, inductor, capacitor)
        error, structure = _size(residuals, elements + 1 + inductor + capacitor)
        fits.append((error, structure, residuals, mu, elements))
        if structure <= limit or error <= FINE:
            good.append(fits[-1])
            if mu <= c:
                break
    passes = bool(good)
    if passes:
        error, structure, residuals, mu, elements = good[-1] if good[-1][3] <= c else good[0]
    else:
        error, structure, residuals, mu, elements = min(fits, key=lambda fit: fit[0])
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


def rc_fit(
    frequencies: np.ndarray, z: Impedance, elements: int, inductor: bool = True, capacitor: bool = False
) -> tuple[Impedance, float]:
    """Relative residuals (F,) and mu of the least-squares fit with so many RC elements."""
    w, share = 2 * np.pi * frequencies, 1 / np.abs(z)
    count, last = len(w), elements + 1 + inductor
    rows = np.zeros((last + capacitor, 2 * count))  # columns of the problem: the real parts, then the imaginary ones
    rows[0, :count] = share
    x = np.exp(-np.linspace(np.log(w.max()), np.log(w.min()), elements))[:, None] * w
    real, imaginary = rows[1 : elements + 1, :count], rows[1 : elements + 1, count:]
    np.divide(share, 1 + x * x, out=real)
    np.multiply(real, -x, out=imaginary)
    if inductor:
        rows[elements + 1, count:] = w * share
    if capacitor:
        rows[last, count:] = -share / w
    goal = np.concatenate([z.real * share, z.imag * share])
    norm = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    values = np.linalg.lstsq((rows / norm[:, None]).T, goal, rcond=None)[0] / norm
    resistances = values[1 : elements + 1]
    positive = resistances.sum(where=resistances >= 0)
    negative = positive - resistances.sum()
    left = goal - values @ rows
    return left[:count] + 1j * left[count:], float(1 - negative / positive) if positive else -np.inf


def _size(residuals: Impedance, fitted: int) -> tuple[float, float]:
    """Root mean square of the parts, corrected for the numbers fitted, and its ratio to `scatter` (white noise: 1)."""
    parts = np.stack([residuals.real, residuals.imag])
    error = np.sqrt(np.sum(parts**2) / max(parts.size - fitted, 1))
    return float(error), float(error / max(scatter(parts), 1e-300))
