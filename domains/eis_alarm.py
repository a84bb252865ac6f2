"""The residual alarm: whether a circuit explains a measured spectrum, given how noisy it is."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from domains.eis import Impedance
from domains.eis_units import si

FALSE = 1e-3  # chance that noise alone raises the alarm, at most
INSTRUMENT = 0.01  # what a measurement is off by without looking noisy, a share of |Z|
TOLERANCE = 0.02  # what components named by the user add: resistors of 1%, capacitors of 5%
CONTACTS = 0.08  # what a series resistance named by the user adds: leads and contacts of some ohm are part of it


@dataclass(frozen=True)
class Alarm:
    """residual: |dZ| / |Z| of the worst three neighbours (their median), around `frequency` (Hz); what is allowed."""

    residual: float
    allowed: float
    raised: bool
    frequency: float

    @property
    def sentence(self) -> str:
        """What was found, for the user."""
        where = f"near {si(self.frequency, 'Hz')}"
        if self.raised:
            return (f"ALARM: this circuit does not explain the spectrum: {where} it is {self.residual:.1%} off, noise "
                    f"and tolerances allow {self.allowed:.1%}.")  # fmt: skip
        return (
            f"The circuit explains the spectrum: at worst {self.residual:.1%} off, {where}; allowed {self.allowed:.1%}."
        )


def allowed_residual(noise: float, points: int, known: Iterable[str] = ()) -> float:
    """The largest median |dZ| / |Z| of three neighbours among `points` that raises no alarm.

    noise: its share of |Z| on the real and on the imaginary part. |dZ| / |Z| is then of Rayleigh's distribution, so
    the median of three is above x noise with a chance of at most 3 exp(-x^2). known: names that the user gave.
    """
    known = set(known)
    systematic = INSTRUMENT + TOLERANCE * bool(known - {"Rs"}) + CONTACTS * ("Rs" in known)
    return noise * float(np.sqrt(np.log(3 * points / FALSE))) + systematic


def residual_alarm(
    frequencies: np.ndarray, model: Impedance, measured: Impedance, noise: float, known: Iterable[str] = ()
) -> Alarm:
    """Whether three neighbouring points leave the circuit by more than `allowed_residual`; one stray point may.

    frequencies (F,) in Hz, ascending; model, measured (F,) complex in ohm. Calibrated on the measured cells of
    examples/data/eis, Rs fitted: the seven circuits that their record explains are at most 2.9% off, the other four,
    with the five recorded values, at least 17%.
    """
    off = np.abs(model - measured) / np.abs(measured)
    medians = np.median(np.lib.stride_tricks.sliding_window_view(off, 3), axis=1)
    worst = int(np.argmax(medians))
    allowed = allowed_residual(noise, len(off), known)
    return Alarm(float(medians[worst]), allowed, bool(medians[worst] > allowed), float(frequencies[worst + 1]))
