"""Impedances as ratios of polynomials beside those of the circuit's elements."""

import numpy as np
import pytest

from domains.eis import TOPOLOGIES, impedance
from domains.eis_ratio import Ratios
from domains.eis_spectrum import HIGH, LOW
from runtime.errors import UsageError


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_ratios_are_impedances_to_all_digits_even_far_outside_of_the_prior(topology):
    rng, frequencies = np.random.default_rng(0), np.geomspace(1e-3, 1e8, 45)
    p = LOW / 10 * (100 * HIGH / LOW) ** rng.random((300, 5))
    p[0, 2], p[1, 0] = 1e-9, 1e9  # hardly a membrane, hardly a shunt
    real, imaginary = Ratios(p, frequencies, topology).parts()
    want = impedance(p, frequencies, topology)
    np.testing.assert_allclose(real, want.real, rtol=1e-13)
    np.testing.assert_allclose(imaginary, want.imag, rtol=1e-13)


def test_some_rows_are_those_of_all():
    p = np.random.default_rng(0).uniform(LOW, HIGH, (7, 5))
    ratios = Ratios(p, np.geomspace(1, 1e6, 9), "series")
    for some, every in zip(ratios.parts(slice(2, 5)), ratios.parts(), strict=True):
        np.testing.assert_allclose(some, every[2:5], rtol=1e-14)
    with pytest.raises(UsageError, match="topology must be"):
        Ratios(p, np.ones(1), "both")
