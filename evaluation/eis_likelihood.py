"""How well circuits explain one measured spectrum: likelihood with the noise level given or left open, Rs, prior."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import lgamma

import numpy as np

from domains.eis import ENDS, POINTS, Impedance, from_places, impedance
from domains.eis_noise import LEAST, STEADY, axes, check_kind
from domains.eis_ratio import Ratios
from domains.eis_spectrum import Spectrum
from runtime.errors import UsageError

TAIL = 36.0  # nats below its largest from which on a level's likelihood no longer counts
TOGETHER = 4  # |Z|^2 that are multiplied before their logarithm is taken


@dataclass(frozen=True)
class Problem:
    """One spectrum, and what is known and assumed of the circuit behind it.

    known: {parameter: value} in ohm and farad. levels: the least and the largest relative size of the noise,
    log-uniform between them; equal ends: that level. rs: the least and the largest series resistance (ohm), log-uniform
    between them; equal ends: that value, which may be 0. kind: of noise (domains.eis_noise).
    """

    spectrum: Spectrum
    topology: str
    known: Mapping[int, float] = field(default_factory=dict)
    levels: tuple[float, float] = (1e-3, 5e-2)
    rs: tuple[float, float] = (0.0, 0.0)
    kind: str = "modulus"

    def __post_init__(self):
        check_kind(self.kind)
        if not 0 < self.levels[0] <= self.levels[1]:
            raise UsageError(f"noise levels must be above 0 and rise, got {self.levels}.")
        if not 0 <= self.rs[0] <= self.rs[1] or (self.rs[0] == 0 < self.rs[1]):
            raise UsageError(f"rs needs 0 < least <= largest, or one number twice, got {self.rs}.")

    @property
    def free(self) -> list[int]:
        """The parameters that are not known."""
        return [i for i in range(5) if i not in self.known]

    @property
    def rs_free(self) -> bool:
        """Whether the series resistance is to be inferred."""
        return self.rs[0] < self.rs[1]

    @property
    def symmetric(self) -> bool:
        """Whether the membranes can't be told apart: nothing known of either."""
        return not set(self.known) & {1, 2, 3, 4}

    @cached_property
    def form(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`quadratic` of the spectrum under its kind of noise."""
        return quadratic(self.spectrum.z, self.kind)

    def impedance(self, places: np.ndarray) -> Impedance:
        """Z (..., F) without Rs of circuits at places (..., 5)."""
        return impedance(from_places(places), self.spectrum.frequencies, self.topology)

    def ratios(self, places: np.ndarray) -> Ratios:
        """The same of many circuits at places (N, 5), faster."""
        return Ratios(from_places(places), self.spectrum.frequencies, self.topology)

    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """ln of noise levels (J,) and of their shares of the prior, dense enough for the trapezoidal rule."""
        low, high = np.log(self.levels)
        if low == high:
            return np.array([low]), np.zeros(1)
        # the posterior of ln level is about 1 / sqrt(4 F) wide
        count = 2 + int((high - low) * np.sqrt(4 * len(self.spectrum.z)))
        share = np.ones(count)
        share[[0, -1]] = 0.5
        return np.linspace(low, high, count), np.log(share / share.sum())

    def log_likelihood(self, z: Impedance) -> np.ndarray:
        """ln p(spectrum | circuit) in nats, (...) of model impedances (..., F) with their Rs, over all levels."""
        return self.of_deviation(*deviation(self.spectrum.z, z.real, z.imag, self.kind))

    def of_deviation(self, square: np.ndarray, size: np.ndarray) -> np.ndarray:
        """`log_likelihood` (...) of what `deviation` gives, (...) each.

        Of the levels those count whose likelihood is above e^-TAIL of the largest, about ln sqrt(square / 2 F). Where
        all of these are open, the mean over levels is a gamma function.
        """
        low, high = np.log(self.levels)
        count = len(self.spectrum.z)
        # x above the peak it is lower by count (2 x - 1 + e^-2x) >= count 2 x^2 / (1 + x), below the peak by more
        reach = (TAIL + np.sqrt(TAIL * (TAIL + 8 * count))) / (4 * count)
        peak = 0.5 * np.log(np.maximum(square, 1e-300) / (2 * count))
        found = lgamma(count) - np.log(max(2 * (high - low), 1e-300)) - count * (2 * peak + np.log(count))
        cut = (peak - reach < low) | (peak + reach > high)
        if cut.any():
            found = np.where(cut, 0, found)
            found[cut] = self._over_nodes(square[cut], peak[cut] - reach, reach)
        return found - size - count * np.log(2 * np.pi)

    def _over_nodes(self, square: np.ndarray, lowest: np.ndarray, reach: float) -> np.ndarray:
        """ln of the mean over levels (n,) by their `nodes` from lowest (n,) to twice `reach` above it."""
        levels, shares = self.nodes()
        apart = (levels[-1] - levels[0]) / max(len(levels) - 1, 1)
        wide = min(len(levels), 3 + 2 * int(reach / apart)) if apart else 1
        first = np.clip((lowest - levels[0]) / (apart or 1), 0, len(levels) - wide).astype(int)
        at = first[:, None] + np.arange(wide)
        power = shares - 2 * len(self.spectrum.z) * levels
        return log_sum(-0.5 * square[:, None] * np.exp(-2 * levels)[at] + power[at])

    def log_prior(self, places: np.ndarray) -> np.ndarray:
        """ln of the prior density per cell width of the unknown parameters, (...); -inf outside its range."""
        unknown = places[..., self.free]
        inside = ((unknown >= ENDS[0]) & (unknown <= ENDS[1])).all(axis=-1)  # NaN is outside
        return np.where(inside, -len(self.free) * np.log(POINTS), -np.inf)


def deviation(
    observed: Impedance, real: np.ndarray, imaginary: np.ndarray, kind: str = "modulus"
) -> tuple[np.ndarray, np.ndarray]:
    """Sums over frequencies, (...) each, of Re Z and Im Z (..., F): squares of errors, ln of their two sizes.

    Squares are of the errors over their size at noise level 1; modulus: |Z_observed - Z|^2 / |Z|^2, and ln |Z|^2.
    """
    if kind == "proportional":
        return proportional(observed, real, imaginary)
    if kind == "phase":
        return phase(observed, real, imaginary)
    square, off = real * real, imaginary * imaginary
    square += off
    np.subtract(real, observed.real.copy(), out=off)  # a stride of 2 takes longer
    off *= off
    across = imaginary - observed.imag.copy()
    across *= across
    off += across
    off /= square
    wide = -(-square.shape[-1] // TOGETHER)
    product = square[..., :wide].copy()  # a logarithm takes longer than all the rest: one of several numbers' product
    for start in range(wide, square.shape[-1], wide):
        part = square[..., start : start + wide]
        product[..., : part.shape[-1]] *= part
    return off.sum(axis=-1), np.log(product).sum(axis=-1)


def proportional(observed: Impedance, real: np.ndarray, imaginary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`deviation` of errors as large as Re Z and Im Z."""
    least = LEAST * np.sqrt(real * real + imaginary * imaginary)
    sizes = np.maximum(np.abs(real), least), np.maximum(np.abs(imaginary), least)
    off, across = (observed.real - real) / sizes[0], (observed.imag - imaginary) / sizes[1]
    return (off * off + across * across).sum(axis=-1), np.log(sizes[0] * sizes[1]).sum(axis=-1)


def phase(observed: Impedance, real: np.ndarray, imaginary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`deviation` of errors of the angle, and STEADY times as large ones of ln |Z|; the area is that of the parts."""
    x, y = observed.real, observed.imag
    seen, turned = x * x + y * y, np.arctan2(y * real - x * imaginary, x * real + y * imaginary)
    stretched = 0.5 / STEADY * np.log(seen / (real * real + imaginary * imaginary))
    square = (turned * turned + stretched * stretched).sum(axis=-1)
    return square, np.full(square.shape, np.log(STEADY * seen).sum())


def quadratic(z: Impedance, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """xx, xy, yy (F,): xx dx^2 + 2 xy dx dy + yy dy^2 is `deviation`'s square of a small error dx + j dy at z (F,)."""
    turn, along, across = axes(z, kind)
    along, across = along**2, across**2
    return (along * turn.real**2 + across * turn.imag**2, (across - along) * turn.real * turn.imag,
            along * turn.imag**2 + across * turn.real**2)  # fmt: skip


def log_sum(values: np.ndarray) -> np.ndarray:
    """ln of the sum of exponentials over the last axis; -inf where all are."""
    most = values.max(axis=-1)
    most = np.where(np.isfinite(most), most, 0)
    with np.errstate(divide="ignore"):
        return most + np.log(np.exp(values - most[..., None]).sum(axis=-1))


def log_add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """ln(e^a + e^b) where not both are -inf, in half the time of NumPy's logaddexp."""
    most = np.maximum(a, b)
    return most + np.log1p(np.exp(np.minimum(a, b) - most))
