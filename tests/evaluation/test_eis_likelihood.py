"""The posterior under each kind of noise: likelihood, Rs, dense integrals, coverage, and which kind it was."""

import mlx.core as mx
import numpy as np
import pytest

from domains.eis import (
    ENDS,
    NAMES,
    Impedance,
    canonical,
    default_frequencies,
    from_places,
    impedance,
    to_places,
)
from domains.eis_fit import levenberg_marquardt
from domains.eis_noise import KINDS, log_likelihood, noisy, white_squares
from domains.eis_spectrum import Spectrum
from evaluation import eis_posterior, eis_rs
from evaluation.eis_likelihood import Problem, deviation, log_add, quadratic
from evaluation.eis_predictor import ProbabilisticEISPredictor
from models.eis_predictor import EISPredictor
from runtime.errors import UsageError
from tests.evaluation import lattice

CIRCUIT = np.array([460.0, 4820.0, 2210.0, 2e-6, 9e-6])
PLACE = to_places(CIRCUIT)


def problem(kind: str, known: tuple = (), level=0.02, rs=0.0, levels=None, bounds=(0.0, 0.0)) -> Problem:
    frequencies = default_frequencies(14)
    z = noisy(impedance(CIRCUIT, frequencies, "parallel", rs), level, np.random.default_rng(5), kind)
    given = {i: float(CIRCUIT[i]) for i in known}
    return Problem(Spectrum(frequencies, z), "parallel", given, levels or (level, level), bounds, kind)


def predictor(topology: str = "series", **options) -> ProbabilisticEISPredictor:
    mx.random.seed(0)
    net = EISPredictor(shape=(30, 4), hidden=16, width=8, slots=4, depth=1, mixture=2)
    return ProbabilisticEISPredictor(net, topology, samples=400, drawn=32, **options)


def simulated(kind: str, rng: np.random.Generator, level: float = 0.01) -> tuple[np.ndarray, Spectrum]:
    circuit, frequencies = from_places(rng.uniform(*ENDS, 5)), default_frequencies(30)
    return circuit, Spectrum(frequencies, noisy(impedance(circuit, frequencies, "series"), level, rng, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_likelihood_is_that_of_the_noise_and_an_open_level_its_mean(kind):
    fixed, open_level = problem(kind), problem(kind, levels=(1e-3, 0.2))
    z = fixed.impedance(PLACE + np.random.default_rng(1).normal(0, 0.02, (5, 5)))
    np.testing.assert_allclose(fixed.log_likelihood(z), log_likelihood(fixed.spectrum.z, z, 0.02, kind), rtol=1e-10)
    levels = np.linspace(np.log(1e-3), np.log(0.2), 8_001)
    each = np.stack([log_likelihood(fixed.spectrum.z, z, np.exp(level), kind) for level in levels])
    want = each.max(axis=0) + np.log(np.trapezoid(np.exp(each - each.max(axis=0)), levels, axis=0) / np.log(200))
    np.testing.assert_allclose(open_level.log_likelihood(z), want, atol=1e-3)


@pytest.mark.parametrize("points", [7, 40, 200])
def test_the_mean_over_levels_is_the_integral_where_the_likeliest_is_open(points):
    """By the gamma function, and by nodes, less exactly, where the likelihood reaches to an end of the range."""
    frequencies, size = np.geomspace(1, 1e5, points), np.array([3.0] * 6)
    z = impedance(CIRCUIT, frequencies, "series")
    square = 2 * points * np.array([1.2e-4, 2e-4, 3e-3, 0.1, 1.0, 9.0]) ** 2
    levels = np.linspace(np.log(1e-4), np.log(10), 40_001)
    each = -square[:, None] / 2 * np.exp(-2 * levels) - 2 * points * levels - 3 - points * np.log(2 * np.pi)
    most = each.max(axis=1)
    want = most + np.log(np.trapezoid(np.exp(each - most[:, None]), levels) / np.log(1e5))
    found = Problem(Spectrum(frequencies, z), "series", levels=(1e-4, 10.0)).of_deviation(square, size)
    np.testing.assert_allclose(found[1:-1], want[1:-1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found, want, rtol=0, atol=0.05)


def test_exponentials_are_added_without_loss():
    a = np.array([0.0, 1e3, -1e3, -np.inf, 5.0, -800.0])
    for b in (a[::-1], np.zeros(6), np.full(6, 1e4)):
        np.testing.assert_allclose(log_add(a, b), np.logaddexp(a, b), rtol=1e-14)
    np.testing.assert_allclose(eis_rs.soft(a), np.logaddexp(0, a), rtol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_squares_of_small_errors_are_the_quadratic_form(kind):
    z: Impedance = np.array([300 - 50j, 20 - 90j, 1000 - 1j])
    xx, xy, yy = quadratic(z, kind)
    for step in (1e-4, 1e-4j, 7e-5 - 7e-5j):
        square, _ = deviation(z, (z + step).real[None], (z + step).imag[None], kind)
        want = (xx * step.real**2 + 2 * xy * step.real * step.imag + yy * step.imag**2).sum()
        assert square[0] == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_series_resistances_are_drawn_with_their_density(kind):
    """The mean of likelihood x prior / density is the integral over ln Rs, and most draws count."""
    asked = problem(kind, rs=30.0, bounds=(0.3, 300.0))
    z = np.tile(asked.impedance(PLACE[None]), (20_000, 1))
    left, slope = eis_rs.against_rs(asked, z.real, z.imag)
    rs, log_ratio = eis_rs.draw_rs(asked, left, slope, np.random.default_rng(0))
    value = asked.log_likelihood(z + rs[:, None])
    dense = np.exp(np.linspace(np.log(0.3), np.log(300), 20_001))
    exact = asked.log_likelihood(z[:1] + dense[:, None])
    want = np.trapezoid(np.exp(exact - exact.max()), np.log(dense)) / np.log(1000)
    weight = np.exp(value - exact.max() + log_ratio)
    assert np.mean(weight) == pytest.approx(want, rel=0.05)
    assert weight.sum() ** 2 / (weight**2).sum() > 0.3 * len(weight)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_minimises_the_squares_in_the_noises_axes(kind):
    frequencies = default_frequencies(30)
    z = noisy(impedance(CIRCUIT, frequencies, "series"), 0.01, np.random.default_rng(0), kind)
    fit = levenberg_marquardt(frequencies, z, CIRCUIT * 1.3, "series", kind=kind)

    def total(circuit: np.ndarray) -> float:
        return float(white_squares(impedance(circuit, frequencies, "series"), z, kind))  # axes at the spectrum

    best = fit.parameters[0]
    nearby = [total(best * np.exp(step)) for step in 2e-3 * np.concatenate([np.eye(5), -np.eye(5)])]
    assert total(best) < min(nearby)
    assert fit.variance[0] * (60 - 5) == pytest.approx(total(best) * 60, rel=1e-6)
    off = np.abs(impedance(best, frequencies, "series") - z) / np.abs(z)
    assert fit.residual[0] == pytest.approx(off.mean(), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_posterior_with_three_known_is_the_dense_integral(kind):
    asked = problem(kind, known=(0, 1, 3), levels=(0.005, 0.06))
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((64, 5)) * [0, 0, 0.7, 0, 0.7]
    log_q = -(normal**2).sum(axis=1) / 2 / 0.49 - 2 * np.log(0.7 * np.sqrt(2 * np.pi))
    found = eis_posterior.infer(asked, PLACE + normal, log_q, 3000, rng)
    assert (found.effective or 0) > 600
    means = {i: found.weights @ found.places[:, i] for i in asked.free}
    widths = {i: np.sqrt(found.weights @ (found.places[:, i] - means[i]) ** 2) for i in asked.free}
    mesh = np.meshgrid(*[means[i] + np.linspace(-6, 6, 101) * widths[i] for i in asked.free], indexing="ij")
    places = np.tile(PLACE, (mesh[0].size, 1))
    places[:, asked.free] = np.stack([axis.ravel() for axis in mesh], axis=1)
    z = asked.impedance(places)
    each = [log_likelihood(asked.spectrum.z, z, level, kind) for level in np.geomspace(0.005, 0.06, 30)]
    value = np.logaddexp.reduce(np.array(each)) + asked.log_prior(places)
    lattice.close(asked, found, places, value, slack=0.02)


def covered(kind: str, assumed: str, count: int, told: int, seed: int = 0) -> tuple[float, float]:
    """How often the central 50 and 90% hold a parameter of spectra with noise of a kind, another being assumed."""
    rng, asked, half, most = np.random.default_rng(seed), predictor(), [], []
    for row in range(count):
        circuit, spectrum = simulated(kind, rng)
        known = {NAMES[i]: float(circuit[i]) for i in rng.permutation(5)[:told]}
        found = asked.predict([spectrum], known, seed=row, kind=assumed)[0]
        truth = canonical(circuit) if found.merged else circuit
        for i in (i for i, name in enumerate(NAMES) if name not in known):
            one = found.estimates[NAMES[i]]
            half.append(one.half[0] <= truth[i] <= one.half[1])
            most.append(one.most[0] <= truth[i] <= one.most[1])
    return float(np.mean(half)), float(np.mean(most))


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_hold_the_truth_as_often_as_they_say(kind):
    half, most = covered(kind, kind, 30, 3)  # 60 numbers, not all independent: 4 standard deviations
    assert half == pytest.approx(0.5, abs=0.26) and most == pytest.approx(0.9, abs=0.16)


def test_intervals_of_the_wrong_kind_of_noise_do_not():
    assert covered("modulus", "proportional", 20, 3)[1] < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("told", [0, 3])
def test_coverage_of_many_spectra(kind, told):
    half, most = covered(kind, kind, 300, told, seed=1)
    assert half == pytest.approx(0.5, abs=0.08) and most == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_the_likeliest_kind_is_the_spectrums_own(kind):
    rng, asked = np.random.default_rng(3), predictor()
    circuits, spectra = zip(*[simulated(kind, rng) for _ in range(3)], strict=True)
    known = [{"Rsh": float(circuit[0]), "Ra": float(circuit[1]), "Ca": float(circuit[3])} for circuit in circuits]
    found = asked.predict(list(spectra), known, kind="likeliest")
    plain = asked.predict(list(spectra), known, kind=kind)
    for one, same in zip(found, plain, strict=True):
        assert one.noise_kind == kind and one.noise_evidence.keys() == set(KINDS)
        assert one.noise_evidence[kind] == one.log_evidence == same.log_evidence
        assert one.log_evidence == max(one.noise_evidence.values())
        assert one.noise and one.noise.median == pytest.approx(0.01, rel=0.5)
        assert same.noise_evidence == {} and one.to_dict()["noise_kind"] == kind


def test_kinds_of_noise_that_there_are_not():
    _, spectrum = simulated("modulus", np.random.default_rng(0))
    with pytest.raises(UsageError, match="one of modulus, proportional, phase, got 'white'"):
        predictor().predict([spectrum], kind="white")
    with pytest.raises(UsageError, match="refine=True and a predictor that is not of the grid"):
        predictor().predict([spectrum], kind="likeliest", refine=False)
    with pytest.raises(UsageError, match="refine=True and a predictor that is not of the grid"):
        predictor(prior="grid").predict([spectrum], kind="likeliest")
