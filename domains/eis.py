"""The circuits of electrochemical impedance spectra: impedance, grid, swap, and what a spectrum determines.

Two membranes Za, Zb = R / (1 + j w R C) and a resistance Rsh beside or before them, after a series resistance Rs:
series Z = Rs + Rsh + Za + Zb; parallel (an epithelium's) Z = Rs + Rsh (Za + Zb) / (Rsh + Za + Zb).
Parameters are (..., 5) in the order of NAMES, in ohm and farad; frequencies (F,) in Hz; everything is float64.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runtime.errors import UsageError

Topology = Literal["series", "parallel"]
Impedance = NDArray[np.complex128]
TOPOLOGIES: tuple[Topology, ...] = ("series", "parallel")
NAMES = ("Rsh", "Ra", "Rb", "Ca", "Cb")
UNITS = ("ohm", "ohm", "ohm", "F", "F")
LOWEST = np.array([10.0, 10.0, 10.0, 1e-7, 1e-7])
HIGHEST = np.array([1e4, 1e4, 1e4, 5e-5, 5e-5])
POINTS = 12  # of the grid along each parameter, equally far apart in logarithm
GRID = np.geomspace(LOWEST, HIGHEST, POINTS).T  # (5, 12)
CELL = np.log(HIGHEST / LOWEST) / (POINTS - 1)  # width of a grid cell of each parameter, in ln p
ENDS = (-0.5, POINTS - 0.5)  # of the continuous prior, in places: half a cell beyond the grid's
RS_SPAN = 1000.0  # series resistances are log-uniform from the largest one over this
SWAP = [0, 2, 1, 4, 3]  # the order after (Ra, Ca) and (Rb, Cb) have changed places, which no spectrum shows


def default_frequencies(count: int = 50) -> np.ndarray:
    """`count` frequencies (Hz) from 1 Hz to 1 MHz, equally far apart in logarithm."""
    return np.geomspace(1.0, 1e6, count)


def check_topology(topology: str) -> None:
    """Raises UsageError for anything but the two."""
    if topology not in TOPOLOGIES:
        raise UsageError(f"topology must be {' or '.join(TOPOLOGIES)}, got {topology!r}.")


def impedance(
    parameters: np.ndarray, frequencies: np.ndarray, topology: str, rs: np.ndarray | float = 0.0
) -> Impedance:
    """Z (..., F) complex in ohm of parameters (..., 5); rs: series resistance, a number or (...)."""
    check_topology(topology)
    rsh, real, imaginary = _parts(parameters, frequencies)
    if topology == "series":
        real += rsh
    else:  # Rsh m / (Rsh + m): real numbers take half the time of NumPy's complex ones
        total, square = real + rsh, imaginary * imaginary
        real *= total
        real += square
        total *= total
        total += square
        share = np.divide(rsh, total, out=total)  # Rsh / |Rsh + m|^2
        real *= share
        share *= rsh
        imaginary *= share
    found = np.empty(real.shape, np.complex128)
    found.real, found.imag = real, imaginary
    rs = np.asarray(rs, float)
    return found + rs[..., None] if rs.ndim or rs else found


def _columns(parameters: np.ndarray) -> np.ndarray:
    """The parameters (..., 5) with their last axis first, as np.moveaxis gives in five times the time."""
    parameters = np.asarray(parameters, float)
    return parameters.transpose(-1, *range(parameters.ndim - 1))


def _parts(parameters: np.ndarray, frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rsh (..., 1), and the real and imaginary parts of Za + Zb (..., F), which may be written over."""
    rsh, ra, rb, ca, cb = _columns(parameters)[..., None]
    w = 2 * np.pi * np.asarray(frequencies, float)
    (real, imaginary), (other, below) = _membrane(w, ra, ca), _membrane(w, rb, cb)
    real += other
    imaginary += below
    return rsh, real, np.negative(imaginary, out=imaginary)


def _membrane(w: np.ndarray, r: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R / (1 + x^2) and that times x = w R C, (..., F): R / (1 + j x) is the first less j times the second."""
    x = w * (r * c)
    real = x * x
    real += 1
    np.divide(r, real, out=real)
    x *= real
    return real, x


def derivatives(parameters: np.ndarray, frequencies: np.ndarray, topology: str) -> Impedance:
    """dZ / d ln p, (..., F, 5) complex in ohm."""
    check_topology(topology)
    p = _columns(parameters)[..., None]
    jw = 2j * np.pi * np.asarray(frequencies, float)
    columns = {0: p[0] + 0 * jw}
    for r, c in ((1, 3), (2, 4)):  # Z = R / u, u = 1 + jw R C: dZ / d ln R = R / u^2, dZ / d ln C = -jw R^2 C / u^2
        u = 1 + jw * p[r] * p[c]
        columns |= {r: p[r] / u**2, c: -jw * p[r] ** 2 * p[c] / u**2}
    found = np.stack([columns[i] for i in range(5)], axis=-1)
    if topology == "series":
        return found
    rsh, real, imaginary = _parts(parameters, frequencies)
    membranes = real + 1j * imaginary
    total = rsh + membranes
    return found * np.concatenate([(membranes / total)[..., None] ** 2, *4 * [(rsh / total)[..., None] ** 2]], axis=-1)


def canonical(parameters: np.ndarray) -> np.ndarray:
    """The same circuits with Ra Ca <= Rb Cb (equal products: Ra <= Rb), (..., 5)."""
    parameters = np.asarray(parameters, float)
    first, second = parameters[..., 1] * parameters[..., 3], parameters[..., 2] * parameters[..., 4]
    swapped = (first > second) | (first == second) & (parameters[..., 1] > parameters[..., 2])
    return np.where(swapped[..., None], parameters[..., SWAP], parameters)


def canonical_indices(indices: np.ndarray) -> np.ndarray:
    """Grid indices (..., 5) int of the same circuits in the order of `canonical`."""
    indices = np.asarray(indices)
    steps = np.log(HIGHEST / LOWEST)[[1, 3]] / (POINTS - 1)
    first, second = (indices[..., r] * steps[0] + indices[..., c] * steps[1] for r, c in ((1, 3), (2, 4)))
    close = np.isclose(first, second, rtol=0, atol=1e-9)
    swapped = (first > second) & ~close | close & (indices[..., 1] > indices[..., 2])
    return np.where(swapped[..., None], indices[..., SWAP], indices)


def on_grid(indices: np.ndarray) -> np.ndarray:
    """The parameters (..., 5) at grid indices (..., 5) from 0 to 11."""
    return GRID[np.arange(5), np.asarray(indices)]


def to_places(parameters: np.ndarray) -> np.ndarray:
    """Logarithmic places on the grid (..., 5), 0 to 11 and beyond its ends, of parameters in ohm and farad."""
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(parameters, float) / LOWEST) / CELL


def place_of(parameter: int, value: float) -> float:
    """The place of one parameter's value in ohm or farad."""
    return float(np.log(value / LOWEST[parameter]) / CELL[parameter])


def from_places(places: np.ndarray) -> np.ndarray:
    """The parameters (..., 5) at places (..., 5)."""
    return LOWEST * np.exp(np.asarray(places, float) * CELL)


def cells_of(places: np.ndarray) -> np.ndarray:
    """Indices (..., 5) of the grid cells that places (..., 5) lie in; beyond the ends, of the last."""
    return np.clip(np.rint(places), 0, POINTS - 1).astype(np.int64)


def nearest_indices(parameters: np.ndarray) -> np.ndarray:
    """Indices (..., 5) of the grid points nearest in logarithm."""
    return cells_of(to_places(parameters))


def invariants(parameters: np.ndarray, topology: str) -> dict[str, np.ndarray]:
    """What a spectrum of infinite range determines, each (...): the swap changes none of it.

    Both: "TEC" = Ca Cb / (Ca + Cb) (F) and two time constants, "tau_1" <= "tau_2" (s). series: Rsh (ohm), "TER" =
    Rsh + Ra + Rb (ohm); the times are Ra Ca and Rb Cb. parallel: TER = Rsh (Ra + Rb) / (Rsh + Ra + Rb), the times are
    those of the whole impedance's poles; Rsh is not among them, every value above TER fits alike.
    """
    check_topology(topology)
    rsh, ra, rb, ca, cb = _columns(parameters)
    first, second = ra * ca, rb * cb
    capacitance = ca * cb / (ca + cb)
    if topology == "series":
        taus = np.sort(np.stack([first, second]), axis=0)
        return {"TER": rsh + ra + rb, "Rsh": rsh, "TEC": capacitance, "tau_1": taus[0], "tau_2": taus[1]}
    # Rsh (1 + s ta)(1 + s tb) + Ra (1 + s tb) + Rb (1 + s ta) = 0 for s = -1 / tau
    total = rsh + ra + rb
    b, c = (rsh * (first + second) + ra * second + rb * first) / total, rsh * first * second / total
    large = (b + np.sqrt(np.maximum(b**2 - 4 * c, 0))) / 2  # tau^2 - b tau + c = 0; c / large loses no digits
    return {"TER": rsh * (ra + rb) / total, "TEC": capacitance, "tau_1": c / large, "tau_2": large}


def residual_norm(z: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The mean over frequencies of |Z - Z_ref| in ohm, (...) of (..., F)."""
    return np.abs(np.asarray(z) - reference).mean(axis=-1)


def relative_residual(z: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """log10 of `residual_norm` over the mean of |Z_ref|: what a network predicts instead of ohms, (...)."""
    return np.log10(residual_norm(z, reference) / np.abs(reference).mean(axis=-1))
