"""Variable projection of two terms: values against least squares by NumPy and SciPy, slopes against differences."""

import numpy as np
import pytest
from scipy.optimize import nnls

from domains import eis_projection
from domains.eis import default_frequencies
from domains.eis_projection import CURVE, DOWN, LOGS, OHMS, SQUARES, Projected, damped, kept

W = 2 * np.pi * default_frequencies(40)


def columns(logs: np.ndarray, z: np.ndarray, constant: bool) -> tuple[np.ndarray, np.ndarray]:
    """The terms at ln tau (2,) over |z| (F,), real parts before imaginary ones, (2 F, k), and z over |z|, (2 F,)."""
    parts = [1 / (1 + 1j * W * np.exp(log)) for log in logs] + [np.ones(len(W), complex)] * constant
    flat = np.stack(parts, axis=1) / np.abs(z)[:, None]
    goal = z / np.abs(z)
    return np.concatenate([flat.real, flat.imag]), np.concatenate([goal.real, goal.imag])


def spectra(constant: bool, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Noisy spectra (count, F) of two terms, and places near their time constants, ln tau (count, 2)."""
    rng = np.random.default_rng(3)
    logs = np.stack([rng.uniform(-12, -8, count), rng.uniform(-7, -3, count)], axis=1)
    ohms = np.exp(rng.uniform(5, 6, (count, 3))) * [1, 1, constant]
    z = (ohms[:, :2, None] / (1 + 1j * W * np.exp(logs)[..., None])).sum(axis=1) + ohms[:, 2:]
    z *= 1 + 0.01 * (rng.standard_normal(z.shape) + 1j * rng.standard_normal(z.shape))
    return z, logs + rng.uniform(-0.2, 0.2, logs.shape)


@pytest.mark.parametrize("constant", [True, False])
def test_squares_ohms_and_derivatives_are_those_of_least_squares(constant):
    z, logs = spectra(constant)
    rows = np.array([4, 0, 5, 1])
    found = Projected(W, z, np.abs(z), constant).at(logs[rows], rows)
    np.testing.assert_array_equal(found[:, LOGS], logs[rows])

    def left(at, row):
        matrix, goal = columns(at, z[row], constant)
        return goal - matrix @ np.linalg.lstsq(matrix, goal)[0]

    for one, row in zip(found, rows, strict=True):
        matrix, goal = columns(logs[row], z[row], constant)
        ohms = np.linalg.lstsq(matrix, goal)[0]
        assert (ohms > 0).all()
        np.testing.assert_allclose(one[OHMS], np.pad(ohms, (0, 3 - len(ohms))), rtol=1e-9)
        assert one[SQUARES] == pytest.approx((left(logs[row], row) ** 2).sum(), rel=1e-9)
        steps = 1e-5 * np.eye(2)
        slope = [((left(logs[row] + d, row) ** 2).sum() - (left(logs[row] - d, row) ** 2).sum()) / 2e-5 for d in steps]
        np.testing.assert_allclose(one[DOWN], -0.5 * np.array(slope), rtol=1e-5)
        # Kaufman: the Jacobian is that of the columns at fixed resistances, less what the columns themselves can do
        own = [(columns(logs[row] + d, z[row], constant)[0] @ ohms - columns(logs[row] - d, z[row], constant)[0] @ ohms)
               / 2e-5 for d in steps]  # fmt: skip
        away = [part - matrix @ np.linalg.lstsq(matrix, part)[0] for part in own]
        want = [away[0] @ away[0], away[0] @ away[1], away[1] @ away[1]]
        np.testing.assert_allclose(one[CURVE], want, rtol=1e-5)


@pytest.mark.parametrize("constant", [True, False])
def test_resistances_are_never_below_zero_and_the_best_of_those(constant):
    rng = np.random.default_rng(0)
    k, count = 2 + constant, 60
    a = rng.standard_normal((count, 30, k + 3)) + 0.5
    gram = np.swapaxes(a, 1, 2) @ a
    found, left = kept(gram)
    below = 0
    for i in range(count):
        if (np.linalg.lstsq(a[i, :, :k], a[i, :, -1])[0] > 0).all():
            continue  # nothing need be left out, and kept is not asked
        below += 1
        want, norm = nnls(a[i, :, :k], a[i, :, -1])
        np.testing.assert_allclose(found[i], want, rtol=1e-7, atol=1e-9)
        assert left[i] == pytest.approx(norm**2, rel=1e-7)
    assert below > 10
    # within a spectrum: a negative second term, which is left out, has no say in the step
    z = (500 / (1 + 1j * W * 1e-4) - 30 / (1 + 1j * W * 1e-2) + 70 * constant)[None]
    one = Projected(W, z, np.abs(z), constant).at(np.log([[1.1e-4, 1e-2]]), np.array([0]))
    want, norm = nnls(*columns(np.log([1.1e-4, 1e-2]), z[0], constant))
    np.testing.assert_allclose(one[0, OHMS][:k], want, rtol=1e-6, atol=1e-9)
    assert one[0, SQUARES] == pytest.approx(norm**2, rel=1e-9) and want[1] == 0
    step = damped(one)[0]
    assert step[1] == 0 and -1 <= step[0] < 0


@pytest.mark.parametrize("constant", [True, False])
def test_a_search_ends_where_the_slope_is_nothing_and_says_what_is_not_done(constant):
    z, logs = spectra(constant)
    rows = np.arange(len(z))
    projected = Projected(W, z, np.abs(z), constant)
    entries = projected.at(logs, rows)
    before = entries.copy()
    assert set(projected.search(entries, rows, 1)) <= set(rows)
    assert (entries[:, SQUARES] < before[:, SQUARES]).all()
    assert len(projected.search(entries, rows, 12)) == 0
    # another step would gain little: 1% of the squares in the last one, and steps converge quadratically
    gain = (damped(entries) * entries[:, DOWN]).sum(axis=1)
    assert (gain < 1e-3 * entries[:, SQUARES]).all()
    # the same row twice, from two places
    twice = projected.at(np.concatenate([logs, logs[:, ::-1]]), np.tile(rows, 2))
    projected.search(twice, np.tile(rows, 2), 12)
    np.testing.assert_allclose(twice[:6, SQUARES], twice[6:, SQUARES], rtol=1e-3)


def test_a_place_from_which_a_step_fails_is_kept():
    z, logs = spectra(False)
    projected, rows = Projected(W, z, np.abs(z), False), np.arange(len(z))
    entries = projected.at(logs, rows)
    projected.search(entries, rows, 30)
    best = entries.copy()
    entries[:, DOWN] *= -100  # a step uphill
    assert len(projected.search(entries, rows, 1)) == len(z)
    np.testing.assert_array_equal(entries[:, SQUARES], best[:, SQUARES])
    np.testing.assert_array_equal(entries[:, LOGS], best[:, LOGS])


@pytest.mark.parametrize("constant", [True, False])
def test_a_term_of_a_thousandth_is_found_beside_one_that_is_nearly_placed(constant):
    tried = np.linspace(-14, -2, 25)
    small = np.array([4, 12, 20])
    first = np.array([-7.0, -11.0, -5.0])
    z = 1000 / (1 + 1j * W * np.exp(first)[:, None]) + 1 / (1 + 1j * W * np.exp(tried[small])[:, None]) + 50 * constant
    found = Projected(W, z, np.abs(z), constant).second(first + 0.005, tried)
    np.testing.assert_allclose(found, tried[small])
    # no other place is as good by least squares in double precision, with the large term's slope beside it
    for row, log in enumerate(first + 0.005):
        squares = []
        for other in tried:
            matrix, goal = columns(np.array([log, other]), z[row], constant)
            slope = (columns(np.array([log + 1e-5, other]), z[row], constant)[0] - matrix)[:, :1] / 1e-5
            matrix = np.concatenate([matrix, slope], axis=1)
            squares.append(((goal - matrix @ np.linalg.lstsq(matrix, goal)[0]) ** 2).sum())
        assert np.argmin(squares) == small[row]


def test_time_constants_stay_near_those_that_the_frequencies_and_the_grid_show():
    z, _ = spectra(False, 2)
    wide = Projected(np.array([1e-9, 1e12]), z[:, :2], np.abs(z[:, :2]), False)
    low, high = wide.ends
    assert low == pytest.approx(np.log(1e-6) - eis_projection.NEAR)  # 10 ohm, .1 uF
    assert high == pytest.approx(np.log(0.5) + eis_projection.NEAR)  # 10 kohm, 50 uF
    found = wide.at(np.array([[-1e3, 1e3]]), np.array([1]))
    np.testing.assert_allclose(found[0, LOGS], [low, high])
    narrow = Projected(np.array([1e2, 1e4]), z[:, :2], np.abs(z[:, :2]), False)
    reach = eis_projection.REACH
    np.testing.assert_allclose(narrow.ends, [-np.log(1e4) - reach, min(-np.log(1e2) + reach, high)])
