"""Numbers with SI prefixes."""

import pytest

from domains.eis_units import si


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.346e-6, "F", "2.35 µF"), (9.03e-8, "F", "90.3 nF"), (10029.0, "Ω", "10.0 kΩ"), (812.0, "Ω", "812 Ω"),
        (999.6, "Ω", "1.00 kΩ"), (1000.0, "Ω", "1.00 kΩ"), (0.63, "Ω", "630 mΩ"), (1e-3, "s", "1.00 ms"),
        (-4820.0, "Ω", "-4.82 kΩ"), (0.0, "Ω", "0 Ω"), (float("inf"), "Ω", "inf Ω"), (1e-20, "F", "1.00e-20 F"),
        (5e13, "Ω", "5.00e+13 Ω"),
    ],
)  # fmt: skip
def test_three_digits_and_a_prefix(value, unit, text):
    assert si(value, unit) == text


def test_every_number_reads_back_to_three_digits():
    powers = {"f": -15, "p": -12, "n": -9, "µ": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9}
    for step in range(-1400, 1100):
        value = 10.0 ** (step / 100)
        number, unit = si(value, "F").split()
        back = float(number) * 10.0 ** powers[unit.removesuffix("F")]
        assert abs(back / value - 1) <= 0.5e-2 and 1 <= float(number) < 1000
