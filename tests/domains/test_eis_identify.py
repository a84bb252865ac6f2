"""Verdicts: ranks, what is determined by what is measured and known, deviations against the exact posterior."""

import numpy as np
import pytest

from domains import eis
from domains.eis_family import HIGH, LOW, profile, ridge, within_prior
from domains.eis_identify import Verdict, verdict, whitened
from domains.eis_noise import log_likelihood
from runtime.errors import UsageError

FREQUENCIES = eis.default_frequencies(30)
CIRCUIT = np.array([1000.0, 988.0, 994.0, 9.2e-8, 2.3e-6])
SLOW = np.array([460.0, 4820.0, 2210.0, 3e-6, 6e-7])


def draw(count: int, seed: int = 0) -> np.ndarray:
    return eis.LOWEST * (eis.HIGHEST / eis.LOWEST) ** np.random.default_rng(seed).random((count, 5))


def determined(found: Verdict) -> set[str]:
    return {name for name, quantity in found.quantities.items() if quantity.determined}


def weighted_deviation(samples: np.ndarray, log_weight: np.ndarray) -> tuple[np.ndarray, float]:
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    return np.sqrt(weight @ (samples - weight @ samples) ** 2), 1 / np.sum(weight**2)


def log_posterior(q: np.ndarray, truth: np.ndarray, topology: str, level: float) -> np.ndarray:
    """Up to a constant, of ln p (N, 5), of a spectrum that shows no error by chance; the prior is the box."""
    inside = ((q >= np.log(LOW)) & (q <= np.log(HIGH))).all(axis=1)
    z = eis.impedance(truth, FREQUENCIES, topology)
    return np.where(inside, log_likelihood(z, eis.impedance(np.exp(q), FREQUENCIES, topology), level), -np.inf)


@pytest.mark.parametrize("circuit", [*draw(8), SLOW, SLOW[eis.SWAP]])
def test_a_ridge_goes_through_its_circuit_both_ways_and_keeps_spectrum_and_order(circuit):
    found = ridge(circuit, 101)
    np.testing.assert_array_equal(found[50], circuit)
    assert (np.diff(found[:, 0]) < 0).all() and found[0, 0] > 1e4 * eis.invariants(circuit, "parallel")["TER"]
    near = found[30:70]
    z = eis.impedance(circuit, FREQUENCIES, "parallel")
    np.testing.assert_allclose(eis.impedance(near, FREQUENCIES, "parallel"), np.tile(z, (40, 1)), rtol=1e-6)
    slower = near[:, 1] * near[:, 3] > near[:, 2] * near[:, 4]
    assert (slower == (circuit[1] * circuit[3] > circuit[2] * circuit[4])).all()
    fine = ridge(circuit)[1180:1220]
    assert np.abs(np.diff(np.log(fine), axis=0)).max() < 0.1  # no jumps


def test_fits_along_a_value_find_the_exact_family():
    exact = ridge(CIRCUIT)
    exact = exact[within_prior(exact)]
    found = profile(CIRCUIT, "Rsh", FREQUENCIES, "parallel", 1e-3)
    np.testing.assert_allclose(found[[0, -1], 0], [exact[:, 0].min(), exact[:, 0].max()], rtol=0.06)
    resistances = eis.invariants(found, "parallel")["TER"]
    np.testing.assert_allclose(resistances, eis.invariants(CIRCUIT, "parallel")["TER"], rtol=2e-3)


def test_an_interval_within_the_noise_is_two_deviations_wide():
    """Of what is determined: chi squared grows by 4 two standard deviations away."""
    found = profile(CIRCUIT, "Ca", FREQUENCIES, "series", 0.05)
    deviation = verdict(CIRCUIT, FREQUENCIES, "series", 0.05).quantities["Ca"].deviation
    reached = np.log(found[[0, -1], 3] / CIRCUIT[3]) / deviation
    step = np.log(HIGH[3] / LOW[3]) / 15 / 9 / deviation  # how finely values are tried
    assert -2.1 <= reached[0] <= -2 + step and 2.1 >= reached[1] >= 2 - step


@pytest.mark.parametrize("circuit", [CIRCUIT, SLOW, np.array([3000.0, 100.0, 700.0, 1e-6, 5e-6])])
def test_a_parallel_spectrum_determines_four_numbers_and_never_the_shunt(circuit):
    found = verdict(circuit, FREQUENCIES, "parallel", 0.002)
    assert found.singular[3] > 1 and found.singular[4] < 1e-9 * found.singular[0]
    assert {"TER", "TEC", "tau_1", "tau_2"} <= determined(found) and "Rsh" not in determined(found)
    family = found.families["Rsh"]
    z = eis.impedance(circuit, FREQUENCIES, "parallel")
    np.testing.assert_allclose(eis.impedance(family, FREQUENCIES, "parallel"), np.tile(z, (len(family), 1)), rtol=1e-6)
    assert (np.diff(family[:, 0]) > 0).all() and within_prior(family).all()
    assert "Rsh is not determined" in found.sentence and "TER = " in found.sentence and found.swap


@pytest.mark.parametrize("topology, known", [("series", ()), ("parallel", ("Rsh",))])
def test_a_series_spectrum_or_a_known_shunt_determine_all(topology, known):
    found = verdict(CIRCUIT, FREQUENCIES, topology, 0.01, known)
    assert found.singular[-1] > 1 and determined(found) == set(found.quantities) and not found.families
    assert set(found.quantities) == {*eis.NAMES, "TER", "TEC", "tau_1", "tau_2"} - set(known)
    assert found.swap and "not determined" not in found.sentence
    assert not verdict(CIRCUIT, FREQUENCIES, topology, 0.01, (*known, "Ra")).swap


def test_a_shunt_beside_large_membranes_is_open_though_it_barely_moves_around_the_circuit():
    """Rsh = 100 ohm beside 14 kohm: the prior's membranes leave it 1%, the spectrum alone leaves it open."""
    found = verdict(np.array([100.0, 9000.0, 5000.0, 1e-6, 5e-6]), FREQUENCIES, "parallel", 1e-4)
    assert "Rsh" not in determined(found) and found.quantities["Rsh"].deviation < 0.01


def test_equal_time_constants_leave_the_membranes_open():
    equal = np.array([3000.0, 1000.0, 500.0, 1e-6, 2e-6])
    for topology in eis.TOPOLOGIES:
        found = verdict(equal, FREQUENCIES, topology, 0.01, ("Rsh",))
        assert determined(found) >= {"TER", "TEC"} and not determined(found) & set(eis.NAMES)
        assert np.ptp(np.log(found.families["Ra"][:, 1])) > 1
    assert "Rsh" not in determined(verdict(equal, FREQUENCIES, "parallel", 0.01))


def test_nearly_equal_time_constants_open_more_than_the_exact_ridge():
    """Two membranes of 99 ohm and 2.3 uF: the ridge is 1% of Rsh long, the noise allows two decades; Rs is free."""
    circuit, frequencies = np.array([100.3, 99.2, 98.9, 2.35e-6, 2.34e-6]), np.geomspace(0.5, 1e4, 100)
    exact = ridge(circuit)
    assert np.ptp(np.log(exact[within_prior(exact), 0])) < 0.05
    found = verdict(circuit, frequencies, "parallel", 0.007, rs=99.0, rs_free=True)
    assert found.ridge is None and not determined(found) & set(eis.NAMES) and "Rs" in determined(found)
    for name, family in found.families.items():
        values = family[:, eis.NAMES.index(name)]
        assert values[-1] / values[0] > 30 and (np.diff(values) > 0).all()
        assert any((np.abs(np.log(row / circuit)) < 1e-12).all() for row in family)
        z = eis.impedance(family, frequencies, "parallel", 99.0)
        seen = eis.impedance(circuit, frequencies, "parallel", 99.0)
        weight = 1 / np.abs(seen) ** 2
        shift = ((seen - z).real * weight).sum(axis=1, keepdims=True) / weight.sum()  # what Rs takes up
        squares = (np.abs(z + shift - seen) ** 2 * weight).sum(axis=1) / 0.007**2
        assert (squares < 4 * 1.1).all(), name


def test_noise_only_widens_the_exact_family_when_a_large_series_resistance_is_free():
    circuit, frequencies = np.array([100.3, 99.2, 98.9, 9.2e-8, 2.34e-6]), np.geomspace(0.5, 1e4, 100)
    exact = ridge(circuit)
    exact = exact[within_prior(exact)]
    found = verdict(circuit, frequencies, "parallel", 0.005, rs=198.0, rs_free=True)
    assert found.ridge is None and set(found.families) == set(eis.NAMES)
    for i, name in enumerate(eis.NAMES):
        ends = found.families[name][[0, -1], i]
        assert ends[0] < 1.07 * exact[:, i].min() and ends[1] > exact[:, i].max() / 1.07, name


def test_what_hardly_shows_is_open_to_the_priors_ends():
    """Of two quick membranes below 10 kHz only the shunt is seen; the fits have to follow a bend to find that."""
    circuit, frequencies = np.array([100.3, 99.2, 9790.0, 1.6e-7, 1e-8]), np.geomspace(0.5, 1e4, 100)
    assert circuit[4] < LOW[4]  # beyond the prior, as a fit may end
    found = verdict(circuit, frequencies, "parallel", 0.006, rs=99.0, rs_free=True)
    for name in ("Ra", "Rb"):
        values = found.families[name][[0, -1], eis.NAMES.index(name)]
        np.testing.assert_allclose(values, [LOW[1], HIGH[1]], rtol=1e-6, err_msg=name)
    shunted = np.array([84.44, 64.493, 3884.7, 2.39123e-5, 2.38991e-6])
    found = verdict(shunted, FREQUENCIES, "parallel", 0.03, ("Rsh",)).families["Rb"]
    np.testing.assert_allclose(found[[0, -1], 2], [LOW[2], HIGH[2]], rtol=1e-6)
    off = eis.impedance(found, FREQUENCIES, "parallel") / eis.impedance(shunted, FREQUENCIES, "parallel") - 1
    assert (np.sum(np.abs(off) ** 2, axis=1) < 4 * 1.1 * 0.03**2).all()


def test_high_frequencies_alone_leave_the_resistances_open():
    high = np.geomspace(1e5, 1e7, 30)
    found = verdict(CIRCUIT, high, "series", 0.01)
    assert {"Rsh", "TEC"} <= determined(found) and not determined(found) & {"Ra", "Rb", "TER"}
    family = found.families["Rb"]
    assert family[0, 2] < 100 and family[-1, 2] == pytest.approx(HIGH[2])
    off = eis.impedance(family, high, "series") / eis.impedance(CIRCUIT, high, "series") - 1
    assert (np.sum(np.abs(off) ** 2, axis=1) / 0.01**2 < 4 * 1.05).all()


def test_a_free_series_resistance_is_told_from_a_parallel_shunt_but_not_from_a_series_one():
    parallel = verdict(CIRCUIT, FREQUENCIES, "parallel", 0.01, ("Rsh",), rs=50.0, rs_free=True)
    assert parallel.quantities["Rs"].determined and parallel.quantities["Rs"].value == 50.0
    without = verdict(CIRCUIT, FREQUENCIES, "parallel", 0.01, ("Rsh",), rs=50.0)
    assert parallel.quantities["Ra"].deviation > without.quantities["Ra"].deviation
    series = verdict(CIRCUIT, FREQUENCIES, "series", 0.01, rs=50.0, rs_free=True)
    assert determined(series) & {"Rsh", "Rs"} == set() and "Ra" in determined(series)
    np.testing.assert_allclose(series.families["Rsh"][[0, -1], 0], [LOW[0], 1050.0], rtol=0.06)
    open_shunt = verdict(CIRCUIT, FREQUENCIES, "parallel", 0.01, rs=50.0, rs_free=True)
    assert "Rsh" not in determined(open_shunt) and "Rs" in determined(open_shunt)


@pytest.mark.parametrize("topology, known", [("series", ()), ("parallel", ("Rsh",))])
def test_deviations_are_those_of_the_exact_posterior(topology, known):
    """By importance sampling from a wider t-like proposal."""
    rng, level = np.random.default_rng(0), 0.02
    found = verdict(CIRCUIT, FREQUENCIES, topology, level, known)
    free = [i for i in range(5) if eis.NAMES[i] not in known]
    rows = whitened(CIRCUIT, FREQUENCIES, topology, level)[:, free]
    root = 1.3 * np.linalg.cholesky(np.linalg.inv(rows.T @ rows))
    normal = rng.standard_normal((20000, len(free)))
    q = np.tile(np.log(CIRCUIT), (20000, 1))
    q[:, free] += normal @ root.T
    exact, size = weighted_deviation(q, log_posterior(q, CIRCUIT, topology, level) + 0.5 * np.sum(normal**2, axis=1))
    assert size > 5000
    said = [found.quantities[eis.NAMES[i]].deviation for i in free]
    np.testing.assert_allclose(said, exact[free], rtol=0.03)
    for name, value in eis.invariants(np.exp(q), topology).items():
        if name not in eis.NAMES:
            spread = weighted_deviation(np.log(value)[:, None], log_posterior(q, CIRCUIT, topology, level)
                                        + 0.5 * np.sum(normal**2, axis=1))[0][0]  # fmt: skip
            assert found.quantities[name].deviation == pytest.approx(spread, rel=0.03), name


@pytest.mark.parametrize(
    "circuit, level, close", [(CIRCUIT, 0.03, 0.03), (SLOW, 0.02, 0.1)]
)  # the prior cuts wide ones aslant
def test_deviations_along_a_ridge_are_those_of_the_exact_posterior(circuit, level, close):
    """By importance sampling from 400 normal distributions along the ridge, each with its own slope and width."""
    rng, count = np.random.default_rng(0), 20000
    path = ridge(circuit)
    path = path[within_prior(path)]
    path = path[np.unique(np.linspace(0, len(path) - 1, 400).astype(int))]
    centre = np.log(path)
    tangent = np.gradient(centre, axis=0)
    rows = whitened(path, FREQUENCIES, "parallel", level)[..., :5]
    length = np.sum(tangent**2, axis=1)[:, None, None]
    along = tangent[:, :, None] * tangent[:, None] / length**2 / 1.5**2  # one and a half steps of the path
    precision = np.swapaxes(rows, 1, 2) @ rows / 1.5 + along
    root = np.linalg.cholesky(precision)
    pick = rng.integers(len(path), size=count)
    step = np.linalg.solve(np.swapaxes(root, 1, 2)[pick], rng.standard_normal((count, 5, 1)))[..., 0]
    q = centre[pick] + step
    density = np.full(count, -np.inf)
    for middle, factor in zip(centre, root, strict=True):
        square = np.sum(((q - middle) @ factor) ** 2, axis=1)
        density = np.logaddexp(density, np.log(np.diag(factor)).sum() - 0.5 * square)
    exact, size = weighted_deviation(q, log_posterior(q, circuit, "parallel", level) - density)
    assert size > 2000
    found = verdict(circuit, FREQUENCIES, "parallel", level)
    np.testing.assert_allclose([found.quantities[name].deviation for name in eis.NAMES], exact, rtol=close)


def test_the_prior_is_what_is_left_without_a_signal():
    found = verdict(CIRCUIT, FREQUENCIES, "series", 1e4)
    said = [found.quantities[name].deviation for name in eis.NAMES]
    np.testing.assert_allclose(said, np.log(HIGH / LOW) / np.sqrt(12), rtol=1e-3)
    assert not determined(found) and "determines nothing" in found.sentence


def test_mistakes_are_told():
    assert "given" in verdict(CIRCUIT, FREQUENCIES, "series", 0.01, eis.NAMES).sentence
    with pytest.raises(UsageError, match="above 0, got 0"):
        verdict(CIRCUIT, FREQUENCIES, "series", 0)
    with pytest.raises(UsageError, match="got Rx"):
        verdict(CIRCUIT, FREQUENCIES, "series", 0.01, ("Rx",))
