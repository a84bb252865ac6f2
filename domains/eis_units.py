"""Numbers with units for people: SI prefixes, three digits."""

import math

UNIT_OF = {"Rsh": "Ω", "Ra": "Ω", "Rb": "Ω", "Ca": "F", "Cb": "F", "Rs": "Ω", "TER": "Ω", "TEC": "F", "tau_1": "s",
           "tau_2": "s"}  # fmt: skip
PREFIXES = {-15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}


def si(value: float, unit: str, digits: int = 3) -> str:
    """A value in ohm, F, s or Hz with its prefix: si(2.346e-6, "F") is "2.35 µF", si(10029.0, "Ω") "10.0 kΩ"."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    rounded = float(f"{value:.{digits - 1}e}")  # 999.96 is 1.00 k, not 1000
    power = math.floor(math.log10(abs(rounded)) + 1e-12)
    exponent = min(max(3 * (power // 3), min(PREFIXES)), max(PREFIXES))
    if power < min(PREFIXES) or power > max(PREFIXES) + 2:
        return f"{value:.{digits - 1}e} {unit}"
    return f"{rounded / 10.0**exponent:.{max(digits - 1 - (power - exponent), 0)}f} {PREFIXES[exponent]}{unit}"
