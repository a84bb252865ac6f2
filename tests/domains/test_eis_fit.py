"""Fits: slopes by differences, truths from clean spectra, scipy's least squares, spread of refits, bounds."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from domains import eis
from domains.eis_fit import BEYOND, Residuals, Search, fit_from_middle, levenberg_marquardt, middle
from domains.eis_noise import noisy
from runtime.errors import UsageError

FREQUENCIES = eis.default_frequencies(40)
CIRCUIT = np.array([460.0, 4820.0, 2210.0, 3e-6, 6e-7])


def draw(count: int, seed: int = 0) -> np.ndarray:
    return eis.LOWEST * (eis.HIGHEST / eis.LOWEST) ** np.random.default_rng(seed).random((count, 5))


@pytest.mark.parametrize("topology", eis.TOPOLOGIES)
@pytest.mark.parametrize("known", [{}, {"Rsh": 300.0}, {"Ra": 900.0, "Cb": 2e-6}])
def test_normal_matrix_and_residual_by_differences_at_the_start(topology, known):
    start, rs, h = draw(3), None if known.get("Rsh") else 25.0, 1e-5
    z = noisy(eis.impedance(draw(3, seed=1), FREQUENCIES, topology, 25.0), 0.01, np.random.default_rng(0))
    found = levenberg_marquardt(FREQUENCIES, z, start, topology, known, rs, steps=0)
    for name, value in known.items():
        start[:, eis.NAMES.index(name)] = value
    np.testing.assert_allclose(found.parameters, start, rtol=1e-12)
    relative = (eis.impedance(start, FREQUENCIES, topology, 0.0 if rs is None else rs) - z) / np.abs(z)
    np.testing.assert_allclose(found.residual, np.abs(relative).mean(axis=1))
    columns = []
    for name in found.free:
        if name == "Rs":
            columns.append(1 / np.abs(z) + 0j)
            continue
        step = np.exp(h * (np.array(eis.NAMES) == name))
        up, down = (eis.impedance(q, FREQUENCIES, topology) for q in (start * step, start / step))
        columns.append((up - down) / (2 * h) / np.abs(z))
    jacobian = np.stack(columns, axis=-1)
    want = np.real(np.swapaxes(jacobian, 1, 2).conj() @ jacobian)
    np.testing.assert_allclose(found.normal, want, rtol=1e-6, atol=1e-8 * np.abs(want).max())


@pytest.mark.parametrize("topology", eis.TOPOLOGIES)
def test_truths_come_back_from_clean_spectra_up_to_the_swap(topology):
    truth = draw(40, seed=4)
    known = {"Rsh": truth[:, 0]} if topology == "parallel" else None
    found = levenberg_marquardt(FREQUENCIES, eis.impedance(truth, FREQUENCIES, topology), middle(40), topology,
                                known, steps=400)  # fmt: skip
    assert (found.residual < 1e-6).mean() > 0.9
    # what hardly shows (equal times, a small membrane beside a large one) is let off
    right = np.abs(np.log(eis.canonical(found.parameters) / eis.canonical(truth))).max(axis=1) < 1e-2
    assert right.mean() > 0.8


def test_a_series_resistance_is_found_beside_a_known_shunt():
    z = eis.impedance(np.tile(CIRCUIT, (2, 1)), FREQUENCIES, "parallel", np.array([0.5, 120.0]))
    found = levenberg_marquardt(FREQUENCIES, z, middle(2), "parallel", {"Rsh": CIRCUIT[0]}, None)
    np.testing.assert_allclose(found.rs, [0.5, 120.0], rtol=1e-4)
    np.testing.assert_allclose(eis.canonical(found.parameters), np.tile(eis.canonical(CIRCUIT), (2, 1)), rtol=1e-3)
    there = np.r_[CIRCUIT, 120.0]
    still = levenberg_marquardt(FREQUENCIES, z[1], there, "parallel", {"Rsh": CIRCUIT[0]}, None, steps=0)
    assert still.rs == 120.0 and still.residual < 1e-12
    assert found.free == ("Ra", "Rb", "Ca", "Cb", "Rs") and found.covariance.shape == (2, 5, 5)


@pytest.mark.parametrize("topology", eis.TOPOLOGIES)
def test_as_good_as_scipy_on_noisy_spectra(topology):
    truth = draw(20, seed=7)
    z = noisy(eis.impedance(truth, FREQUENCIES, topology), 0.01, np.random.default_rng(0))
    found = levenberg_marquardt(FREQUENCIES, z, truth, topology)

    def squares(q, seen):
        off = (eis.impedance(np.exp(q), FREQUENCIES, topology) - seen) / np.abs(seen)
        return np.r_[off.real, off.imag]

    box = np.log(eis.LOWEST / BEYOND), np.log(eis.HIGHEST * BEYOND)
    ours = [np.sum(squares(np.log(p), seen) ** 2) for p, seen in zip(found.parameters, z, strict=True)]
    np.testing.assert_allclose(ours, found.variance * (80 - 5), rtol=1e-9)
    for own, p, seen in zip(ours, truth, z, strict=True):
        theirs = least_squares(squares, np.log(p), args=(seen,), bounds=box, x_scale="jac", xtol=1e-12, ftol=1e-12)
        assert own <= 2 * theirs.cost * (1 + 3e-4)  # a gain of 0.02 in chi squared


@pytest.mark.parametrize("topology, known", [("series", {}), ("parallel", {"Rsh": 460.0})])
def test_covariance_is_the_spread_of_500_refits(topology, known):
    z = noisy(eis.impedance(np.tile(CIRCUIT, (500, 1)), FREQUENCIES, topology), 0.01, np.random.default_rng(3))
    found = levenberg_marquardt(FREQUENCIES, z, np.tile(CIRCUIT, (500, 1)), topology, known)
    free = [eis.NAMES.index(name) for name in found.free]
    spread = np.cov(np.log(found.parameters[:, free]).T)
    said = np.median(found.covariance, axis=0)
    deviations = np.sqrt(np.diag(spread)), np.sqrt(np.diag(said))
    np.testing.assert_allclose(deviations[1], deviations[0], rtol=0.1)  # 500 refits: 3.2% each
    correlation = [matrix / np.outer(d, d) for matrix, d in zip((spread, said), deviations, strict=True)]
    np.testing.assert_allclose(correlation[1], correlation[0], atol=0.12)
    assert np.sqrt(np.median(found.variance)) == pytest.approx(0.01, rel=0.02)


def test_covariance_is_huge_where_nothing_shows():
    z = noisy(eis.impedance(CIRCUIT, FREQUENCIES, "parallel"), 0.01, np.random.default_rng(0))
    found = levenberg_marquardt(FREQUENCIES, z, CIRCUIT, "parallel")
    assert np.sqrt(found.covariance[0, 0, 0]) > 1e3


@pytest.mark.parametrize("topology", eis.TOPOLOGIES)
def test_most_fits_from_the_middle_of_the_grid_reach_the_noise(topology):
    truth = draw(200, seed=2)
    clean = eis.impedance(truth, FREQUENCIES, topology)
    z = noisy(clean, 0.01, np.random.default_rng(1))
    found = levenberg_marquardt(FREQUENCIES, z, middle(200), topology)
    assert (found.residual < 1.1 * (np.abs(clean - z) / np.abs(z)).mean(axis=1)).mean() >= 0.98


@pytest.mark.parametrize("topology", eis.TOPOLOGIES)
@pytest.mark.parametrize("names", [("Rsh", "Ra", "Rb"), ("Rsh",)])
def test_known_resistances_lead_to_the_noise_whichever_membrane_is_quicker(topology, names):
    truth = draw(200, seed=3)
    clean = eis.impedance(truth, FREQUENCIES, topology)
    z = noisy(clean, 0.01, np.random.default_rng(1))
    known = {name: truth[:, eis.NAMES.index(name)] for name in names}
    found = fit_from_middle(FREQUENCIES, z, topology, known)
    floor = (np.abs(clean - z) / np.abs(z)).mean(axis=1)
    assert (found.residual < 1.1 * floor).mean() >= 0.97
    np.testing.assert_allclose(found.parameters[:, 0], truth[:, 0])
    relative = np.abs(eis.impedance(found.parameters, FREQUENCIES, topology) - z) / np.abs(z)
    np.testing.assert_allclose(found.residual, relative.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.variance, (relative**2).sum(axis=1) / (80 - len(found.free)), rtol=1e-6)


def test_a_parameter_beyond_the_box_stops_at_its_wall_and_the_others_go_on():
    truth = CIRCUIT * [1, 500, 1, 1, 1]
    z = eis.impedance(truth, FREQUENCIES, "series")
    found = levenberg_marquardt(FREQUENCIES, z, CIRCUIT, "series")
    assert found.parameters[0, 1] == pytest.approx(eis.HIGHEST[1] * BEYOND)
    np.testing.assert_allclose(found.parameters[0, [0, 2]], CIRCUIT[[0, 2]], rtol=0.3)


def test_rows_do_not_depend_on_each_other_nor_on_how_frequencies_are_given():
    truth = draw(150, seed=9)
    z = noisy(eis.impedance(truth, FREQUENCIES, "series"), 0.02, np.random.default_rng(0))
    together = levenberg_marquardt(np.tile(FREQUENCIES, (150, 1)), z, middle(150), "series", steps=12)
    for i in (0, 127, 128, 149):
        alone = levenberg_marquardt(FREQUENCIES, z[i], middle(), "series", steps=12)
        np.testing.assert_allclose(alone.parameters[0], together.parameters[i], rtol=1e-6)
        assert alone.steps[0] == together.steps[i] <= 12


@pytest.mark.parametrize("topology", eis.TOPOLOGIES)
def test_more_steps_are_never_worse(topology):
    z = eis.impedance(draw(50, seed=5), FREQUENCIES, topology)
    squares = [levenberg_marquardt(FREQUENCIES, z, middle(50), topology, steps=n).variance for n in (0, 1, 2, 5, 20)]
    assert (np.diff(squares, axis=0) <= 0).all() and (squares[-1] < squares[0]).all()


def test_mistakes_are_told():
    z = eis.impedance(CIRCUIT, FREQUENCIES, "series")
    with pytest.raises(UsageError, match="among Rsh, Ra, Rb, Ca, Cb, got Rx"):
        levenberg_marquardt(FREQUENCIES, z, CIRCUIT, "series", {"Rx": 1.0})
    with pytest.raises(UsageError, match="one resistance"):
        levenberg_marquardt(FREQUENCIES, z, CIRCUIT, "series", rs=None)


@pytest.mark.parametrize("levels", [(0.02, 0.02), (1e-3, 0.2)])
def test_a_prior_about_the_start_and_the_noise_level_are_part_of_what_is_minimised(levels):
    """At the end no step of a thousandth makes the sum better: squares over the level's square, and away^2 stay."""
    rng, frequencies = np.random.default_rng(3), eis.default_frequencies(20)
    truth = np.array([300.0, 800.0, 3000.0, 1e-6, 2e-5])
    z = noisy(eis.impedance(truth, frequencies, "series"), 0.02, rng)
    start, free = np.append(np.log(truth) + 0.4, 0.0)[None], list(range(5))
    stay = np.array([9.0, 40.0, 0.0, 400.0, 1e4])
    search = Search(np.full(5, -50.0), np.full(5, 50.0), np.full(5, 0.5), small=1e-9, levels=levels, stay=stay)
    residuals = Residuals(z[None], 2 * np.pi * frequencies[None], "series", free)
    q, _, _, _, squares = residuals.fit(start, 80, search)
    level = search.level(squares, 40)[0]
    assert level == pytest.approx(np.clip(np.sqrt(squares[0] / 40), *levels))

    def total(step: np.ndarray) -> float:
        at = q[0, :5] + step
        off = np.abs(eis.impedance(np.exp(at), frequencies, "series") - z) ** 2 / np.abs(z) ** 2
        return off.sum() / level**2 + (stay * (at - start[0, :5]) ** 2).sum()

    steps = 1e-3 * np.concatenate([np.eye(5), -np.eye(5)])
    assert min(map(total, steps)) > total(np.zeros(5))
    assert np.abs(q[0, 4] - start[0, 4]) < 0.1 < np.abs(q[0, 2] - start[0, 2])  # held by the prior, and not


def test_no_step_makes_what_is_minimised_larger():
    rng, frequencies = np.random.default_rng(4), eis.default_frequencies(12)
    z = noisy(eis.impedance(draw(300), frequencies, "parallel"), 0.02, rng)
    start = np.concatenate([np.log(draw(300, 1)), np.zeros((300, 1))], axis=1)
    stay, level = np.full(5, 0.05), 2.0
    search = Search(np.full(5, -50.0), np.full(5, 50.0), np.full(5, 9.0), 1e-9, levels=(level, level), stay=stay)
    residuals = Residuals(z, np.tile(2 * np.pi * frequencies, (300, 1)), "parallel", list(range(5)))

    def total(q: np.ndarray) -> np.ndarray:
        off = np.abs(eis.impedance(np.exp(q[:, :5]), frequencies, "parallel") - z) ** 2 / np.abs(z) ** 2
        return off.sum(axis=1) / level**2 + (stay * (q[:, :5] - start[:, :5]) ** 2).sum(axis=1)

    once, twice = (residuals.fit(start, steps, search)[0] for steps in (1, 2))
    assert (total(once) <= total(start) + 1e-9).all() and (total(twice) <= total(once) + 1e-9).all()
    assert (total(twice) < total(start)).mean() > 0.9
