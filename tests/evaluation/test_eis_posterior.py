"""The posterior against dense integration: with four, three and no parameters known, Rs and noise open."""

import numpy as np
import pytest

from domains.eis import SWAP, Impedance, default_frequencies, from_places, impedance, to_places
from domains.eis_noise import log_likelihood, noisy
from domains.eis_shunt import log_volume, open_shunt, with_shunt
from domains.eis_spectrum import Spectrum
from evaluation import eis_posterior, eis_rs
from evaluation.eis_likelihood import Problem
from evaluation.eis_mixture import FREEDOM, Mixture
from runtime.errors import UsageError
from tests.evaluation import lattice

CIRCUIT = np.array([460.0, 4820.0, 2210.0, 2e-6, 9e-6])
PLACE = to_places(CIRCUIT)


def problem(
    topology="parallel", known: tuple = (), level=0.05, rs=0.0, count=12, levels=None, bounds=(0.0, 0.0)
) -> Problem:
    frequencies = default_frequencies(count)
    z = noisy(impedance(CIRCUIT, frequencies, topology, rs), level, np.random.default_rng(5))
    given = {i: float(CIRCUIT[i]) for i in known}
    return Problem(Spectrum(frequencies, z), topology, given, levels or (level, level), bounds)


def draws(asked: Problem, count: int = 64, spread: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """What stands for a network: places around the truth, and ln of their density."""
    normal = np.random.default_rng(0).standard_normal((count, 5))
    normal[:, list(asked.known)] = 0
    log_q = -(normal**2).sum(axis=1) / 2 - len(asked.free) * np.log(spread * np.sqrt(2 * np.pi))
    return PLACE + spread * normal, log_q


def drawn_rs(asked: Problem, z: Impedance) -> tuple[np.ndarray, np.ndarray]:
    """Rs for impedances z (N, F) without it."""
    left, slope = eis_rs.against_rs(asked, z.real, z.imag)
    return eis_rs.draw_rs(asked, left, slope, np.random.default_rng(0))


def test_the_likelihood_is_that_of_the_noise_and_an_open_level_its_mean():
    fixed, open_level = problem(), problem(levels=(1e-3, 0.2))
    z = fixed.impedance(PLACE + np.random.default_rng(1).normal(0, 0.1, (5, 5)))
    np.testing.assert_allclose(fixed.log_likelihood(z), log_likelihood(fixed.spectrum.z, z, 0.05), rtol=1e-12)
    levels = np.linspace(np.log(1e-3), np.log(0.2), 20_001)
    each = np.stack([log_likelihood(fixed.spectrum.z, z, np.exp(level)) for level in levels])
    want = each.max(axis=0) + np.log(np.trapezoid(np.exp(each - each.max(axis=0)), levels, axis=0) / np.log(200))
    np.testing.assert_allclose(open_level.log_likelihood(z), want, atol=1e-4)
    assert open_level.log_prior(np.full((1, 5), 11.6)) == -np.inf
    assert fixed.log_prior(np.full((1, 5), np.nan)) == -np.inf


def test_levels_and_series_resistances_in_order():
    with pytest.raises(UsageError, match="noise levels must be above 0"):
        problem(levels=(0.0, 0.1))
    with pytest.raises(UsageError, match="rs needs 0 < least"):
        problem(bounds=(0.0, 3.0))


def test_a_mixture_is_the_mean_of_its_t_densities_and_draws_from_it():
    from scipy.stats import multivariate_t

    rng = np.random.default_rng(0)
    centres, factors = rng.normal(0, 1, (3, 2)), np.tril(rng.normal(0, 1, (3, 2, 2))) + 2 * np.eye(2)
    mixture, points = Mixture(centres, factors), rng.normal(0, 2, (50, 2))
    parts = [multivariate_t(c, f @ f.T, df=int(FREEDOM)).pdf(points) for c, f in zip(centres, factors, strict=True)]
    np.testing.assert_allclose(mixture.log_density(points), np.log(np.mean(parts, axis=0)), rtol=1e-9)
    drawn = mixture.draw(40_000, rng)
    target = np.exp(-(drawn**2).sum(axis=1) / 2) / (2 * np.pi)
    assert np.mean(target / np.exp(mixture.log_density(drawn))) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("known", [(0, 1, 2, 3), (0, 1, 3), (1, 3, 4)])
@pytest.mark.parametrize("level", [0.001, 0.05])
def test_posterior_with_four_and_three_known_is_the_dense_integral(known, level):
    asked = problem(known=known, level=level, levels=(level / 3, 3 * level))
    found = eis_posterior.infer(asked, *draws(asked), 4000, np.random.default_rng(1))
    assert (found.effective or 0) > 700
    np.testing.assert_array_equal(found.places[:, list(known)], np.tile(PLACE[list(known)], (len(found.places), 1)))
    means = {i: found.weights @ found.places[:, i] for i in asked.free}
    widths = {i: np.sqrt(found.weights @ (found.places[:, i] - means[i]) ** 2) for i in asked.free}
    mesh = np.meshgrid(*[means[i] + np.linspace(-8, 8, 401) * widths[i] for i in asked.free], indexing="ij")
    places = np.tile(PLACE, (mesh[0].size, 1))
    places[:, asked.free] = np.stack([axis.ravel() for axis in mesh], axis=1)
    close(asked, found, places, np.zeros(len(places)))


@pytest.mark.parametrize("level", [0.001, 0.02])
def test_posterior_along_a_thin_curve_is_the_dense_integral(level):
    """With the resistances known, a small shunt leaves little but TEC = 1 / (1/Ca + 1/Cb) to be seen.

    The draws must cover what is left: a tail that none of them lies in is found slowly.
    """
    asked = problem(known=(0, 1, 2), level=level)
    found = eis_posterior.infer(asked, *draws(asked, spread=1.5), 4000, np.random.default_rng(1))
    assert (found.effective or 0) > 400
    series = 1 / (1 / from_places(found.places)[:, 3:]).sum(axis=1)
    middle = found.weights @ np.log(series)
    width = np.sqrt(found.weights @ (np.log(series) - middle) ** 2)
    tec = np.exp(middle + np.linspace(-8, 8, 81) * width)[:, None]
    ca = tec * (1 + np.exp(np.linspace(-6, 5, 3001)))
    cb = 1 / (1 / tec - 1 / ca)
    parameters = np.tile(CIRCUIT, (ca.size, 1))
    parameters[:, 3], parameters[:, 4] = ca.ravel(), cb.ravel()
    # d ln Ca d ln Cb = (1 - TEC / Ca) (Cb / TEC) d ln TEC d ln(Ca / TEC - 1)
    close(asked, found, to_places(parameters), np.log((1 - tec / ca) * cb / tec).ravel())


def close(asked: Problem, found, places: np.ndarray, log_volume: np.ndarray) -> None:
    """The weighted circuits are spread as the posterior summed over a lattice's places, by its quantiles."""
    value = asked.log_likelihood(asked.impedance(places)) + asked.log_prior(places) + log_volume
    lattice.close(asked, found, places, value)


@pytest.mark.parametrize("topology, rs", [("series", 0.0), ("parallel", 0.0), ("parallel", 30.0)])
def test_evidence_with_nothing_known_is_that_of_the_prior(topology, rs):
    """Draws from the prior, weighted by the likelihood, need no proposal."""
    asked = problem(topology, level=0.3, rs=rs, count=6, bounds=(3.0, 300.0) if rs else (0.0, 0.0))
    rng = np.random.default_rng(2)
    values = []
    for _ in range(4):
        places = rng.uniform(-0.5, 11.5, (50_000, 5))
        z = asked.impedance(places) + (3 * 100 ** rng.random((50_000, 1)) if rs else 0)
        values.append(asked.log_likelihood(z))
    value = np.concatenate(values)
    weight = np.exp(value - value.max())
    want = np.log(weight.mean()) + value.max()
    error = weight.std() / weight.mean() / np.sqrt(len(weight))
    found = eis_posterior.infer(asked, *draws(asked, 128, 2.0), 8000, rng)
    assert found.log_evidence == pytest.approx(want, abs=4 * error + 0.1)


@pytest.mark.parametrize("best", [0.3, 2.0, 30.0, 305.0])
def test_series_resistances_are_drawn_with_their_density(best):
    """The mean of likelihood x prior / density is the integral over ln Rs, wherever its peak lies."""
    asked = problem(rs=best, level=0.02, bounds=(0.3, 300.0), count=20)
    z = np.tile(asked.impedance(PLACE[None]), (20_000, 1))
    rs, log_ratio = drawn_rs(asked, z)
    assert (rs >= 0.3).all() and (rs <= 300).all()
    value = asked.log_likelihood(z + rs[:, None])
    dense = np.exp(np.linspace(np.log(0.3), np.log(300), 20_001))
    exact = asked.log_likelihood(z[:1] + dense[:, None])
    want = np.trapezoid(np.exp(exact - exact.max()), np.log(dense)) / np.log(1000)
    assert np.mean(np.exp(value - exact.max() + log_ratio)) == pytest.approx(want, rel=0.05)


def test_shunts_are_drawn_with_their_density_and_about_by_the_prior():
    membranes = np.tile(open_shunt(CIRCUIT), (20_000, 1))
    rsh, log_q = eis_posterior.draw_rsh(membranes, np.random.default_rng(0))
    dense = np.linspace(to_places(np.full(5, membranes[0, :2].sum()))[0] + 1e-9, 11.5, 1_000_001)

    def volume(rsh: np.ndarray) -> np.ndarray:
        circuits = with_shunt(membranes[0], rsh)
        with np.errstate(invalid="ignore"):
            inside = (np.abs(to_places(circuits) - 5.5) <= 6).all(axis=1)
            return np.where(inside, np.exp(log_volume(membranes[0], circuits)), 0)

    ratio = volume(rsh) * np.exp(-log_q)
    want = np.trapezoid(np.nan_to_num(volume(from_places(np.tile(dense[:, None], 5))[:, 0])), dense)
    assert ratio.mean() == pytest.approx(want, rel=0.02)
    assert ratio.sum() ** 2 / (ratio**2).sum() > 0.8 * len(ratio)
    large = np.full((3, 4), 1e5)
    assert np.isnan(eis_posterior.draw_rsh(large, np.random.default_rng(0))[1]).all()


def test_the_search_starts_from_twins_too_where_one_membrane_is_known():
    asked = problem(known=(1,))
    places, _ = draws(asked)
    found, count = eis_posterior.started(asked, places), eis_posterior.CENTRES
    np.testing.assert_array_equal(found[:count], places[:count])
    np.testing.assert_array_equal(found[count:, 1], np.full(count, PLACE[1]))
    np.testing.assert_array_equal(found[count:, [0, 2, 3, 4]], places[:count][:, [0, 1, 4, 3]])
    np.testing.assert_array_equal(eis_posterior.started(problem(), places), places[:count])


def test_a_twin_counts_as_the_circuit():
    asked = problem("series", level=0.05)
    mixture = Mixture(np.array([PLACE]), 0.1 * np.eye(5)[None])
    places = PLACE + 0.1 * np.random.default_rng(0).standard_normal((20, 5))
    log_q = eis_posterior.folded(asked, mixture, places)
    np.testing.assert_allclose(log_q, eis_posterior.folded(asked, mixture, places[:, SWAP]))
    np.testing.assert_allclose(log_q, mixture.log_density(places) - np.log(2), atol=1e-3)


def test_series_resistances_are_drawn_as_narrowly_as_the_noise_that_is_left_allows():
    asked = problem(rs=30.0, level=0.002, levels=(1e-3, 5e-2), bounds=(0.3, 300.0), count=20)
    z = np.tile(asked.impedance(PLACE[None]), (2_000, 1))
    rs, log_ratio = drawn_rs(asked, z)
    log_weight = asked.log_likelihood(z + rs[:, None]) + log_ratio
    weight = np.exp(log_weight - log_weight.max())
    assert weight.sum() ** 2 / (weight**2).sum() > 0.6 * len(weight)


def test_misfits_are_of_the_circuits_with_their_series_resistance_and_infinite_outside_the_prior():
    asked = problem(known=(0,), rs=20.0, bounds=(0.3, 300.0))
    places, log_q = draws(asked, 200)  # more than a block of rows
    places[7, 3] = 12.0
    found = eis_posterior.weighed(asked, places, log_q, np.random.default_rng(0))
    z = impedance(from_places(places), asked.spectrum.frequencies, "parallel", found.rs)
    want = (np.abs(asked.spectrum.z - z) ** 2 / np.abs(z) ** 2).sum(axis=1)
    inside = np.isfinite(found.log_weight)
    assert inside.sum() > 64 and not inside[7]
    np.testing.assert_allclose(found.misfit, np.where(inside, want, np.inf), rtol=1e-9)


def test_a_search_starts_from_a_few_draws_for_each_open_parameter():
    places = np.random.default_rng(0).uniform(0, 11, (64, 5))
    for known, count in (((), 32), ((0,), 32), ((0, 1), 2 * 18), ((0, 1, 2), 2 * 8), ((1, 2, 3, 4), 8)):
        assert len(eis_posterior.started(problem(known=known), places)) == count
