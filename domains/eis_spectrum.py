"""A measured impedance spectrum, checked when it is made, and whether the circuits of the prior could give it."""

from dataclasses import dataclass

import numpy as np

from domains.eis import HIGHEST, LOWEST, POINTS, Impedance, check_topology
from runtime.errors import UsageError

FEWEST = 5  # points
CLEAR = 0.05  # |Im Z| / |Z| from which on an imaginary part's sign counts
SURE = 3.0  # standard deviations of the phases' sum from which on it is not noise
CABLE = 0.25  # share of the points, at the highest frequencies, that a cable may turn
NEGATIVE = 0.15  # -Re Z / |Z| beyond noise: three times 5%
OUTLIERS = 0.1  # share of points that noise may carry beyond what circuits can give
ROOM = 1.1  # times |Z| that circuits can give: a spectrum at its end is beyond it in half of its points
HALF_CELL = (HIGHEST / LOWEST) ** (0.5 / (POINTS - 1))  # how far the continuous prior reaches beyond the grid's ends
LOW, HIGH = LOWEST / HALF_CELL, HIGHEST * HALF_CELL  # of the continuous prior


@dataclass(frozen=True, eq=False)
class Spectrum:
    """One sweep: frequencies (F,) float64 in Hz, ascending, and z (F,) complex128 in ohm, capacitive = negative Im.

    Points may come in any order. Raises UsageError in one sentence for what is no spectrum: other shapes, fewer than 5
    points, values that are not finite, frequencies <= 0, |Z| = 0, a frequency twice, or imaginary parts of which most
    are clearly inductive (a few, as cables give them at high frequencies, are kept).
    """

    frequencies: np.ndarray
    z: Impedance
    name: str = ""

    def __post_init__(self):
        frequencies, z = np.asarray(self.frequencies, np.float64), np.asarray(self.z, np.complex128)
        what = f"the spectrum {self.name}" if self.name else "the spectrum"
        if frequencies.ndim != 1 or frequencies.shape != z.shape:
            raise UsageError(f"{what} needs one impedance for each frequency, got shapes {frequencies.shape} of "
                             f"frequencies and {z.shape} of impedances.")  # fmt: skip
        if len(z) < FEWEST:
            raise UsageError(f"{what} needs at least {FEWEST} points, got {len(z)}.")
        if not (np.isfinite(frequencies) & np.isfinite(z)).all():
            bad = int(np.argmin(np.isfinite(frequencies) & np.isfinite(z)))
            raise UsageError(f"{what} needs finite numbers, got {frequencies[bad]:g} Hz with {z[bad]:g} ohm in point "
                             f"{bad + 1} of {len(z)}.")  # fmt: skip
        if (frequencies <= 0).any():
            raise UsageError(f"{what} needs frequencies above 0 Hz, got {frequencies.min():g}.")
        if (z == 0).any():
            raise UsageError(f"{what} needs impedances other than 0 ohm, got 0 at {frequencies[z == 0][0]:g} Hz.")
        order = np.argsort(frequencies, kind="stable")
        frequencies, z = frequencies[order], z[order]
        twice = frequencies[1:][np.diff(frequencies) == 0]
        if len(twice):
            raise UsageError(f"{what} needs every frequency once, got {twice[0]:g} Hz {1 + (twice == twice[0]).sum()} "
                             f"times: give each sweep as a spectrum of its own.")  # fmt: skip
        clear, inductive, sure = _signs(z)
        if sure and 2 * inductive > clear:
            raise UsageError(f"{what} needs negative imaginary parts where it is capacitive, got {inductive} positive "
                             f"of {clear} clear ones: the column may hold -Z''.")  # fmt: skip
        for name, value in (("frequencies", frequencies), ("z", z)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)


def _signs(z: Impedance) -> tuple[int, int, bool]:
    """How many imaginary parts are clear, how many of them positive, and whether noise cannot be the reason.

    z (F,) by ascending frequency. Positive ones at its very end are left out if they are few: cables are inductive.
    """
    phase = z.imag / np.abs(z)
    noise = scatter(phase)
    tail = int(np.argmax(np.append(phase[::-1] <= CLEAR, True)))
    phase = phase[: len(z) - tail] if tail <= CABLE * len(z) else phase
    clear = np.abs(phase) > CLEAR
    sure = phase.sum() > SURE * noise * np.sqrt(len(phase))
    return int(clear.sum()), int((clear & (phase > 0)).sum()), bool(sure)


def scatter(values: np.ndarray, axis: tuple[int, ...] | None = None) -> np.ndarray:
    """The standard deviation of noise in values (..., F), from second differences: slow changes vanish, it stays.

    axis: over which its square is averaged, None for all.
    """
    second = values[..., 2:] - 2 * values[..., 1:-1] + values[..., :-2]
    return np.sqrt(np.mean(second * second, axis=axis) / 6)


def outside(
    spectrum: Spectrum, topology: str, low_hz: float = 1e-2, high_hz: float = 1e7, fewest: int = FEWEST,
    most: int = 200, rs: float = 0.0,
) -> str | None:  # fmt: skip
    """Why a spectrum is none that the prior's circuits give, one sentence; None where it may be.

    low_hz, high_hz: the frequencies (Hz) that the predictor learned; fewest, most: points; rs: the largest series
    resistance (ohm). For noise's sake a tenth of the points may lie beyond 1.1 times the |Z| that circuits can give.
    """
    frequencies, z = spectrum.frequencies, spectrum.z
    if not fewest <= len(z) <= most:
        return f"it has {len(z)} points, the predictor takes {fewest} to {most}."
    if frequencies[0] < low_hz * (1 - 1e-9) or frequencies[-1] > high_hz * (1 + 1e-9):
        return (f"its frequencies reach from {frequencies[0]:g} to {frequencies[-1]:g} Hz, the predictor knows "
                f"{low_hz:g} to {high_hz:g} Hz.")  # fmt: skip
    if (z.real < -NEGATIVE * np.abs(z)).mean() > OUTLIERS:
        return (f"its real part is not above 0 in {(z.real <= 0).sum()} of {len(z)} points, which no circuit of "
                "resistors and capacitors gives: are the columns swapped?")  # fmt: skip
    least, largest = modulus_bounds(frequencies, topology, rs)
    size = np.abs(z)
    for beyond, how in ((size > ROOM * largest, "more"), (size < least / ROOM, "less")):
        if beyond.mean() > OUTLIERS:
            at = int(np.argmax(np.where(beyond, np.abs(np.log(size / (largest if how == "more" else least))), -1)))
            bound = largest[at] if how == "more" else least[at]
            return (f"|Z| = {size[at]:.3g} ohm at {frequencies[at]:.3g} Hz is {how} than the {bound:.3g} ohm that the "
                    f"{topology} circuits of the predictor can give (are the units ohm and Hz?).")  # fmt: skip
    return None


def modulus_bounds(frequencies: np.ndarray, topology: str, rs: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (F,) in ohm below and above |Z| of every circuit of the continuous prior with up to rs before it.

    Every membrane lies in the quadrant of positive real and negative imaginary parts, so of a sum of two |a + b| is
    at most |a| + |b| and at least sqrt(|a|^2 + |b|^2); admittances alike.
    """
    check_topology(topology)
    w = 2 * np.pi * np.asarray(frequencies, float)
    smallest = np.sqrt(2) / np.hypot(1 / LOW[1], w * HIGH[3])  # |Za + Zb|
    greatest = 2 / np.hypot(1 / HIGH[1], w * LOW[3])
    if topology == "series":
        return np.hypot(LOW[0], smallest), HIGH[0] + greatest + rs
    return 1 / (1 / LOW[0] + 1 / smallest), 1 / np.hypot(1 / HIGH[0], 1 / greatest) + rs
