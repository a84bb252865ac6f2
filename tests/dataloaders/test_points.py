import numpy as np
import pytest

from dataloaders.kmeans import CENTRES, KMeans
from dataloaders.source import ArraySource, Transport
from dataloaders.toy2d import Checkerboard, EightGaussians, Moons, Pairs, TwoSpirals
from runtime.errors import UsageError

COUNT = 100_000


def take(source, count=COUNT, seed=0):
    return source.take(np.arange(count), np.random.default_rng(seed))


def test_eight_gaussians_moments():
    batch = take(EightGaussians(labelled=True))
    x, angle = batch["x"], batch["label"] * np.pi / 4
    # Mean 0, covariance (radius^2 / 2 + std^2) I; 5 standard errors of a variance near 12.8 are .2.
    np.testing.assert_allclose(x.mean(0), 0, atol=0.06)
    np.testing.assert_allclose(np.cov(x.T), (12.5 + 0.562**2) * np.eye(2), atol=0.2)
    around = x - 5 * np.stack([np.cos(angle), np.sin(angle)], 1)
    np.testing.assert_allclose(around.std(0), 0.562, rtol=0.015)
    np.testing.assert_allclose(np.bincount(batch["label"]) / COUNT, 1 / 8, atol=0.006)


def test_moons_without_noise_lie_on_their_half_circles():
    for grid in (True, False):
        batch = take(Moons(noise=0.0, grid=grid, labelled=True), 4001)
        u, inner = (batch["x"].astype(np.float64) + 1) / 3, batch["label"] == 1
        np.testing.assert_allclose((u[~inner] ** 2).sum(1), 1, atol=1e-6)
        np.testing.assert_allclose(((u[inner] - [1, 0.5]) ** 2).sum(1), 1, atol=1e-6)
        assert u[~inner, 1].min() >= -1e-6 and u[inner, 1].max() <= 0.5 + 1e-6


def test_moons_grid_has_even_angles_and_halves():
    batch = take(Moons(noise=0.0, labelled=True), 4001)
    outer = (batch["x"][batch["label"] == 0].astype(np.float64) + 1) / 3
    assert len(outer) == 2000
    np.testing.assert_allclose(np.sort(np.arctan2(outer[:, 1], outer[:, 0])), np.linspace(0, np.pi, 2000), atol=1e-5)
    assert np.abs(np.diff(batch["label"])).sum() > 1000  # rows are shuffled


@pytest.mark.parametrize("grid", [True, False])
def test_moons_mean_and_shared_noise(grid):
    x = take(Moons(noise=0.2, grid=grid))["x"].astype(np.float64)
    # Outer mean (0, 2/pi), inner (1, 1/2 - 2/pi), noise mean .1 on both; then 3 x - 1.
    np.testing.assert_allclose(x.mean(0), (0.8, 0.05), atol=0.03)
    # E|u|^2: 1 on the outer moon, by quadrature on the inner; the noise n adds 2 E n^2 + 2 E n (E u1 + E u2).
    angle = (np.arange(COUNT) + 0.5) * np.pi / COUNT
    inner = (1 - np.cos(angle)) ** 2 + (0.5 - np.sin(angle)) ** 2
    second = (1 + inner.mean()) / 2 + 2 * 0.2**2 / 3 + 2 * 0.1 * 0.75
    np.testing.assert_allclose((((x + 1) / 3) ** 2).sum(1).mean(), second, rtol=0.02)
    if grid:  # one number for both coordinates leaves their difference alone
        still = take(Moons(noise=0.0, grid=True))["x"].astype(np.float64)
        np.testing.assert_allclose(np.sort(x[:, 0] - x[:, 1]), np.sort(still[:, 0] - still[:, 1]), atol=1e-5)


def test_checkerboard_fills_the_black_squares_evenly():
    x = take(Checkerboard())["x"]
    square = np.floor((x + 4) / 2).astype(int)
    assert set(map(tuple, square)) == {(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0}
    np.testing.assert_allclose(
        np.bincount(square[:, 0] * 4 + square[:, 1], minlength=16).max() / COUNT, 1 / 8, atol=0.006
    )
    # Each coordinate is uniform on [-4, 4]: variance 16/3; the black squares' centres have covariance 1.
    np.testing.assert_allclose(x.mean(0), 0, atol=0.04)
    np.testing.assert_allclose(np.cov(x.T), [[16 / 3, 1], [1, 16 / 3]], atol=0.09)


def test_two_spirals_arms_and_moments():
    x = take(TwoSpirals())["x"]
    np.testing.assert_allclose(x.mean(0), 0, atol=0.03)
    np.testing.assert_allclose((x**2).sum(1).mean(), 2 * 1.5**2 + 2 * 0.1**2, rtol=0.015)
    batch = take(TwoSpirals(std=0.0, labelled=True), 5000)
    y = batch["x"].astype(np.float64) * (1 - 2 * batch["label"][:, None])
    radius = np.hypot(*y.T)
    far = radius > 0.1
    turn = np.angle(np.exp(1j * (np.arctan2(y[:, 1], y[:, 0]) - np.pi * radius)))
    np.testing.assert_allclose(turn[far], 0, atol=1e-4)


def test_pairs_follow_their_map_and_velocity():
    source = Pairs(angle=60.0, scale=0.5, shift=(2.0, 1.0))
    batch = {k: v.astype(np.float64) for k, v in take(source).items()}
    z = 0.5 * np.exp(1j * np.pi / 3) * (batch["x0"] @ [1, 1j]) + (2 + 1j)  # the map in complex numbers
    np.testing.assert_allclose(batch["x"] @ [1, 1j], z, atol=1e-6)
    for t in (0.0, 0.3, 1.0):
        between = (1 - t) * batch["x0"] + t * batch["x"]
        np.testing.assert_allclose(source.velocity(between, t), batch["x"] - batch["x0"], atol=1e-5)
    np.testing.assert_allclose(np.cov(batch["x"].T), 0.25 * np.eye(2), atol=0.006)
    np.testing.assert_allclose(batch["x"].mean(0), (2, 1), atol=0.008)


def test_transport_draws_both_sides_independently():
    source = Transport(EightGaussians(1000), Moons(1000))
    batch = take(source)
    assert batch["x0"].dtype == batch["x"].dtype == np.float32
    np.testing.assert_allclose(np.cov(batch["x0"].T), (12.5 + 0.562**2) * np.eye(2), atol=0.2)
    np.testing.assert_allclose(batch["x"].mean(0), (0.8, 0.05), atol=0.03)
    assert np.abs(np.corrcoef(batch["x0"].T, batch["x"].T)[:2, 2:]).max() < 0.016
    noise = source.noise(COUNT, np.random.default_rng(1))
    np.testing.assert_allclose(np.cov(noise.T), (12.5 + 0.562**2) * np.eye(2), atol=0.2)
    assert not np.array_equal(take(source, 50, seed=0)["x"], take(source, 50, seed=1)["x"])


def test_transport_from_a_data_set_gives_its_rows():
    start = ArraySource({"x": np.arange(7.0)[:, None]})
    noise = Transport(start, ArraySource({"x": np.zeros((9, 1))})).noise(500, np.random.default_rng(0))
    assert set(noise.ravel()) == set(range(7))


def test_kmeans_is_the_fixed_mixture():
    train, held = KMeans(), KMeans(10_000, seed=420)
    assert (len(train), len(held)) == (200_000, 10_000)
    assert train.fingerprint() == KMeans().fingerprint() != held.fingerprint()
    batch = take(KMeans(labelled=True), 200_000)
    np.testing.assert_array_equal(batch["x"], train.arrays["x"])
    np.testing.assert_allclose((batch["x"] - CENTRES[batch["label"]]).std(0), 0.1, rtol=0.01)
    np.testing.assert_allclose(np.bincount(batch["label"]) / 200_000, 0.2, atol=0.005)
    covariance = np.cov(CENTRES.T, bias=True) + 0.01 * np.eye(2)
    np.testing.assert_allclose(np.cov(batch["x"].T), covariance, atol=0.03)
    assert KMeans(labelled=True).classes == 5 and train.classes == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Moons(size=0), "size must be at least 1, got 0"),
        (lambda: Checkerboard(cells=1), "cells must be at least 2, got 1"),
        (lambda: Pairs(angle=180.0), "between -180 and 180 degrees.*got 180.0"),
        (lambda: Pairs(shift=(1.0,)), "shift must be two numbers"),
        (lambda: Transport(Moons(), ArraySource({"x": np.zeros((3, 1))})), r"one shape, got \(2,\) and \(1,\)"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UsageError, match=message):
        make()
