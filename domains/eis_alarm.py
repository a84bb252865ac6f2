"""The residual alarm: whether a circuit explains a measured spectrum, given how noisy it is."""

from dataclasses import dataclass

import numpy as np

from domains.eis import Impedance

QUANTILE = 0.9  # of |dZ| / |Z| over the points: some stray points are no reason, a stretch of the spectrum is
OF_NOISE = float(np.sqrt(-2 * np.log(1 - QUANTILE)))  # that quantile for normal errors of 1 on both parts (Rayleigh)
MARGIN = 1.5  # times the quantile that the noise alone gives: of 5 points it may be that high by chance
INSTRUMENT = 0.01  # what a measurement is off by without looking noisy
TOLERANCE = 0.02  # what components named by the user add: resistors of 1%, capacitors of 5%


@dataclass(frozen=True)
class Alarm:
    """residual and allowed: the 90% quantile of |dZ| / |Z| over the points, found and allowed; sentence says both."""

    residual: float
    allowed: float
    raised: bool
    sentence: str


def allowed_residual(noise: float, known: bool = False) -> float:
    """The largest 90% quantile of |dZ| / |Z| without an alarm; noise: share of |Z| on the real and imaginary part."""
    return MARGIN * OF_NOISE * noise + INSTRUMENT + TOLERANCE * known


def residual_alarm(model: Impedance, measured: Impedance, noise: float, known: bool = False) -> Alarm:
    """Whether the 90% quantile of |model - measured| / |measured| is more than `allowed_residual`.

    model, measured (F,) complex in ohm; noise as there; known: whether the user named components, which have
    tolerances of their own. Calibrated on the measured cells of examples/data/eis with their recorded components:
    the seven that the record explains have at most 2.6%, the other four at least 8.9%.
    """
    found = float(np.quantile(np.abs(model - measured) / np.abs(measured), QUANTILE))
    allowed = allowed_residual(noise, known)
    raised = found > allowed
    says = "more than" if raised else "within"
    end = ": this circuit does not explain the spectrum" if raised else ""
    sentence = f"90% of the points lie within {found:.2%} of the circuit, {says} the {allowed:.2%} allowed{end}."
    return Alarm(found, allowed, raised, sentence)


def noise_of(residuals: Impedance, elements: int) -> float:
    """The noise, as a share of |Z| on the real and on the imaginary part, in the residuals (F,) of a linear fit.

    elements: how many coefficients were fitted, which have taken their part of the noise away.
    """
    freedom = max(2 * len(residuals) - elements, 1)
    return float(np.sqrt((np.abs(residuals) ** 2).sum() / freedom))
