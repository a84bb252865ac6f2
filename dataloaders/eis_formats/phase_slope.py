"""Whether columns are what they are called, by the law between an impedance's phase and the slope of its modulus.

The phase of a circuit of resistors and capacitors is about pi/2 d ln|Z| / d ln f, the first term of the series for the
logarithmic Hilbert transform (Ehm, Goehr, Kaus, Roeseler and Schiller, ACH Models in Chemistry 137, 145, 2000).
"""

from collections.abc import Iterator

import numpy as np

from domains.eis import Impedance
from domains.eis_spectrum import FEWEST
from runtime.errors import UsageError

CLEARLY = 12.0  # degrees, mean; circuits are at 4 (median, with up to 5% noise), 32 measured spectra at most at 12
# the same, and its share with Z' taken for |Z|, from which on it is: none of 6,000 right circuits with up to 5% noise
OFF, CLOSER = 5.0, 0.7
ALIKE = 0.6  # correlation of phase and slope that noise does not give
TOO_SMALL = 0.05  # of the phase against the slope
FEWEST_FOR_SIZE = 20  # points


def check_phase(frequencies: np.ndarray, z: Impedance) -> None:
    """UsageError where frequencies and Z (F,) break the law that columns exchanged, negated or in other units keep."""
    if len(z) < FEWEST:
        return
    phase, slope = windows(frequencies, z)
    sizes = np.sqrt([phase @ phase, slope @ slope])
    alike = phase @ slope / max(sizes.prod(), 1e-300)  # their correlation
    if len(z) >= FEWEST_FOR_SIZE and alike < -ALIKE:
        raise UsageError("the phase of Z is positive where |Z| falls with the frequency; needed: Z'' below 0 there "
                         "(the column may hold -Z'').")  # fmt: skip
    if (given := distance(phase, slope)) > CLEARLY:
        best, how = min((error(f, other), how) for how, f, other in alternatives(frequencies, z))
        if best < given / 2:
            raise UsageError(contradiction(given, best, how))
    if given > OFF and (np.abs(z.imag) <= z.real).all():
        parts = np.stack([np.sqrt(z.real**2 - z.imag**2), z.imag], axis=-1)
        if (best := error(frequencies, parts.view(np.complex128)[:, 0])) < CLOSER * given:
            raise UsageError(contradiction(given, best, "with Z' for |Z| beside Z''"))
    if len(z) >= FEWEST_FOR_SIZE and alike > ALIKE and sizes[0] < TOO_SMALL * sizes[1]:
        raise UsageError(f"the phase of Z is {sizes[0] / sizes[1]:.1g} times what the slope of |Z| says; needed: Z' "
                         "and Z'' in one unit.")  # fmt: skip


def contradiction(given: float, best: float, how: str) -> str:
    """What is said of an error in degrees that is smaller with the columns taken otherwise."""
    return (f"the phase of Z is {given:.0f} degrees from what the slope of |Z| says, but {best:.0f} {how}; needed: "
            "columns under their own names and units.")  # fmt: skip


def error(frequencies: np.ndarray, z: Impedance) -> float:
    """The mean distance in degrees between phase and pi/2 slope of Z (F,)."""
    return distance(*windows(frequencies, z))


def distance(phase: np.ndarray, slope: np.ndarray) -> float:
    """The mean of |phase - slope|, (F,) each in radians, in degrees."""
    return float(np.rad2deg(np.abs(phase - slope).mean()))


def windows(frequencies: np.ndarray, z: Impedance) -> tuple[np.ndarray, np.ndarray]:
    """The mean phase and pi/2 d ln|Z| / d ln f of Z (F,), in radians, over windows of an eighth of the points."""
    order = np.argsort(frequencies, kind="stable")
    f, sizes = np.log(frequencies[order]), np.log(np.abs(z[order]))
    phase = np.unwrap(np.angle(z[order]))
    width = max(1, len(f) // 8)
    area = np.concatenate([[0], np.cumsum((phase[1:] + phase[:-1]) / 2 * np.diff(f))])
    step = f[width:] - f[:-width]
    return (area[width:] - area[:-width]) / step, np.pi / 2 * (sizes[width:] - sizes[:-width]) / step


def alternatives(frequencies: np.ndarray, z: Impedance) -> Iterator[tuple[str, np.ndarray, Impedance]]:
    """What else the columns may be: how it is said, frequencies and Z (F,)."""
    yield "with Z' and -Z'' swapped", frequencies, -z.imag - 1j * z.real
    for factor, units in ((1e3, "kohm and ohm, or ohm and mohm"), (1e6, "Mohm and ohm, or kohm and mohm")):
        yield f"with Z'' in units {factor:g} times as large ({units})", frequencies, z.real + 1j * factor * z.imag
        yield f"with Z' in units {factor:g} times as large ({units})", frequencies, factor * z.real + 1j * z.imag
    for angle, how in ((z.imag, "radians"), (np.deg2rad(z.imag), "degrees")):
        polar = z.real * np.cos(angle) + 1j * z.real * np.sin(angle)
        yield f"with Z' for |Z| and Z'' for a phase in {how}", frequencies, polar
    real, imaginary = np.abs(z.real), np.abs(z.imag)
    for how, f, one, two in (("Z'", real, frequencies, imaginary), ("Z''", imaginary, real, frequencies),
                             ("Z'", real, imaginary, frequencies), ("Z''", imaginary, frequencies, real)):  # fmt: skip
        steps = np.diff(f)
        if (f > 0).all() and (steps * steps[0] > 0).all():
            yield f"with {how} for the frequency", f, one - 1j * two
