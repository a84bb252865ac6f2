"""Circuits: impedance by hand, derivatives by differences, symmetry, invariants by brute force, rank of what shows."""

import numpy as np
import pytest

from domains import eis
from runtime.errors import UsageError

FREQUENCIES = eis.default_frequencies()


def draw(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return eis.LOWEST * (eis.HIGHEST / eis.LOWEST) ** rng.random((count, 5))


def membrane(r: float, c: float, f: float) -> complex:
    capacitor = 1 / (2j * np.pi * f * c)
    return r * capacitor / (r + capacitor)


@pytest.mark.parametrize("topology", eis.TOPOLOGIES)
def test_impedance_is_that_of_resistors_and_capacitors(topology):
    for p in draw(5):
        for f in (1.0, 250.0, 1e6):
            both = membrane(p[1], p[3], f) + membrane(p[2], p[4], f)
            want = 7.0 + (p[0] + both if topology == "series" else 1 / (1 / p[0] + 1 / both))
            np.testing.assert_allclose(eis.impedance(p, np.array([f]), topology, rs=7.0), [want], rtol=1e-12)


def test_series_resistances_give_the_impedance_their_shape_also_where_all_are_zero():
    p = draw(1)[0]
    z = eis.impedance(p, FREQUENCIES, "parallel")
    for rs in (np.zeros(3), np.array([0.0, 1.0, 20.0])):
        np.testing.assert_array_equal(eis.impedance(p, FREQUENCIES, "parallel", rs), z + rs[:, None])


@pytest.mark.parametrize("topology", eis.TOPOLOGIES)
def test_capacitive_spectra_have_negative_imaginary_parts_and_end_in_resistances(topology):
    p = draw(20)
    assert (eis.impedance(p, FREQUENCIES, topology).imag < 0).all()
    ends = eis.impedance(p, np.array([1e-6, 1e13]), topology, rs=3.0)
    np.testing.assert_allclose(ends[:, 0].real, eis.invariants(p, topology)["TER"] + 3.0, rtol=1e-6)
    np.testing.assert_allclose(ends[:, 1].real, (p[:, 0] if topology == "series" else 0) + 3.0, rtol=1e-4)


@pytest.mark.parametrize("topology", eis.TOPOLOGIES)
def test_derivatives_by_central_differences(topology):
    p, h = draw(4), 1e-6
    found = eis.derivatives(p, FREQUENCIES, topology)
    for i in range(5):
        step = np.exp(h * (np.arange(5) == i))
        up, down = (eis.impedance(q, FREQUENCIES, topology) for q in (p * step, p / step))
        np.testing.assert_allclose(found[..., i], (up - down) / (2 * h), rtol=1e-6, atol=1e-6 * np.abs(up).max())


@pytest.mark.parametrize("topology", eis.TOPOLOGIES)
def test_swapped_membranes_are_the_same_circuit(topology):
    p = draw(50)
    np.testing.assert_allclose(
        eis.impedance(p, FREQUENCIES, topology), eis.impedance(p[:, eis.SWAP], FREQUENCIES, topology), rtol=1e-12
    )
    once = eis.canonical(p)
    assert (once[:, 1] * once[:, 3] <= once[:, 2] * once[:, 4]).all()
    np.testing.assert_array_equal(once, eis.canonical(p[:, eis.SWAP]))
    np.testing.assert_array_equal(once, eis.canonical(once))


def test_grid_indices_and_their_canonical_order_agree_with_the_parameters():
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 12, (500, 5))
    np.testing.assert_array_equal(eis.nearest_indices(eis.on_grid(indices)), indices)
    ordered = eis.canonical_indices(indices)
    np.testing.assert_array_equal(ordered, eis.canonical_indices(indices[:, eis.SWAP]))
    first, second = (np.log(eis.on_grid(indices)[:, r] * eis.on_grid(indices)[:, c]) for r, c in ((1, 3), (2, 4)))
    differ = ~np.isclose(first, second)
    np.testing.assert_allclose(eis.on_grid(ordered)[differ], eis.canonical(eis.on_grid(indices))[differ], rtol=1e-12)
    np.testing.assert_allclose(eis.GRID[:, [0, -1]], np.stack([eis.LOWEST, eis.HIGHEST], axis=1), rtol=1e-12)


def test_a_parallel_circuit_is_seen_up_to_one_direction_and_a_series_circuit_wholly():
    for p in draw(5, seed=3):
        ranks = {}
        for topology in eis.TOPOLOGIES:
            z, d = eis.impedance(p, FREQUENCIES, topology), eis.derivatives(p, FREQUENCIES, topology)
            rows = np.concatenate([(d / np.abs(z)[:, None]).real, (d / np.abs(z)[:, None]).imag])
            ranks[topology] = np.linalg.matrix_rank(rows, tol=1e-13 * np.linalg.norm(rows))
        assert ranks == {"series": 5, "parallel": 4}


def test_every_shunt_above_the_resistance_fits_a_parallel_spectrum_and_leaves_the_invariants():
    """Another Rsh is chosen, the membranes' four numbers are found that give the same spectrum."""
    p = np.array([800.0, 3000.0, 1500.0, 2e-6, 9e-6])
    z = eis.impedance(p, FREQUENCIES, "parallel")
    other = 2000.0
    rest = 1 / (1 / z - 1 / other)  # what must stand beside the new shunt
    s = 2j * np.pi * FREQUENCIES
    # rest = (n0 + n1 s) / (1 + d1 s + d2 s^2), linear in its coefficients
    rows = np.stack([np.ones_like(s), s, -rest * s, -rest * s**2], axis=1) / np.abs(rest)[:, None]
    scale = np.array([1e3, 1.0, 1e-3, 1e-6])
    both = np.concatenate([rows.real, rows.imag]) * scale
    want = np.concatenate([(rest / np.abs(rest)).real, (rest / np.abs(rest)).imag])
    n0, n1, d1, d2 = scale * np.linalg.lstsq(both, want, rcond=None)[0]
    first, second = np.roots([1, -d1, d2]).real  # the time constants; Ra second + Rb first = n1, Ra + Rb = n0
    ra = (n1 - n0 * first) / (second - first)
    q = np.array([other, ra, n0 - ra, first / ra, second / (n0 - ra)])
    assert (q > 0).all()
    np.testing.assert_allclose(eis.impedance(q, FREQUENCIES, "parallel"), z, rtol=1e-6)
    for name, value in eis.invariants(p, "parallel").items():
        np.testing.assert_allclose(eis.invariants(q, "parallel")[name], value, rtol=1e-5, err_msg=name)


def test_poles_of_the_whole_impedance_by_its_own_size():
    """At s = -1 / tau the denominator Rsh + Za + Zb vanishes."""
    for p in draw(10, seed=1):
        for tau in (eis.invariants(p, "parallel")[name] for name in ("tau_1", "tau_2")):
            s = -1 / tau
            parts = [p[0], p[1] / (1 + s * p[1] * p[3]), p[2] / (1 + s * p[2] * p[4])]
            assert abs(sum(parts)) < 1e-9 * max(map(abs, parts))


def test_residuals_by_hand_and_a_wrong_topology():
    z = np.array([3 + 4j, 1 + 0j])
    assert eis.residual_norm(z, np.array([0j, 1 + 2j])) == 3.5
    assert eis.relative_residual(z, z * 1.1) == pytest.approx(np.log10(0.1 / 1.1))
    with pytest.raises(UsageError, match="series or parallel, got 'ring'"):
        eis.impedance(eis.LOWEST, FREQUENCIES, "ring")


def test_places_are_the_grids_numbers():
    places = np.tile(np.arange(eis.POINTS), (5, 1)).T
    np.testing.assert_allclose(eis.from_places(places), eis.GRID.T, rtol=1e-12)
    np.testing.assert_allclose(eis.to_places(eis.GRID.T), places, atol=1e-12)
    ends = np.sqrt(eis.LOWEST**3 / eis.GRID[:, 1])  # half a step below the lowest
    np.testing.assert_allclose(eis.from_places(np.full(5, eis.ENDS[0])), ends, rtol=1e-12)
    assert eis.place_of(3, eis.GRID[3, 7]) == pytest.approx(7, abs=1e-12)
    assert eis.cells_of(np.array([-0.5, 0.4, 6.6, 11.4, 30.0])).tolist() == [0, 0, 7, 11, 11]


def test_residuals_between_grid_circuits_have_the_published_sizes():
    """In ohm over 50 frequencies: series median about 2000, largest 17745; parallel about 13 times smaller."""
    rng, median = np.random.default_rng(0), {}
    for topology in eis.TOPOLOGIES:
        z, reference = eis.impedance(eis.on_grid(rng.integers(0, 12, (2, 20_000, 5))), FREQUENCIES, topology)
        median[topology] = np.median(eis.residual_norm(z, reference))
    assert median["series"] == pytest.approx(2000, rel=0.2)  # found: 2302
    assert median["series"] / median["parallel"] == pytest.approx(13, rel=0.2)  # found: 15.2
    ends = eis.on_grid(np.array([[11, 11, 11, 0, 0], [0, 0, 0, 11, 11]]))  # the largest and the smallest |Z|
    assert eis.residual_norm(*eis.impedance(ends, FREQUENCIES, "series")) == pytest.approx(17745, abs=0.5)
