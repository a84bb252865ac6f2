from types import SimpleNamespace

import numpy as np
import pytest

from evaluation.fid import FeatureDistance, Pixels, feature_frechet, frechet_distance, kernel_distance
from runtime.errors import UsageError
from tests.evaluation.fakes import FakePipeline, fake_run


def covariance(d, seed):
    root = np.random.default_rng(seed).standard_normal((d, d))
    return root @ root.T


def test_frechet_distance_of_commuting_gaussians():
    # Diagonal covariances: the distance is a sum over axes of squared differences of means and deviations.
    mu1, mu2, sd1, sd2 = np.array([0, 1.0]), np.array([3, -1.0]), np.array([1, 2.0]), np.array([0.5, 5.0])
    expected = 9 + 4 + 0.25 + 9
    assert frechet_distance(mu1, np.diag(sd1**2), mu2, np.diag(sd2**2)) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_of_any_gaussians_equals_scipy():
    from scipy.linalg import sqrtm

    s1, s2, mu = covariance(12, 0), covariance(12, 1), np.zeros(12)
    expected = np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)
    assert frechet_distance(mu, s1, mu, s2) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_to_itself_with_fewer_rows_than_features():
    x = np.random.default_rng(0).standard_normal((20, 50))
    assert feature_frechet(x, x) == pytest.approx(0, abs=1e-5)
    assert feature_frechet(x, x + 2) == pytest.approx(4 * 50, rel=1e-6)


def test_kernel_distance_of_its_definition():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 4)), rng.standard_normal((30, 4)) + 0.5

    def mean(a, b, skip):
        terms = [(a[i] @ b[j] / 4 + 1) ** 3 for i in range(30) for j in range(30) if not (skip and i == j)]
        return np.mean(terms)

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    # A subset of everything is everything, in another order.
    assert kernel_distance(x, y, 2, 30, rng) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_is_unbiased():
    # Two draws of one law: the mean over pairs is 0 within its own error, which a V-statistic (bias .4) is not.
    rng = np.random.default_rng(1)
    values = [kernel_distance(*rng.standard_normal((2, 60, 3)), 5, 50, rng) for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)
    assert np.std(values) / np.sqrt(200) < 0.02


def test_kernel_distance_in_closed_form():
    # d = 1, x ~ N(0, 1), y ~ N(m, 1): the kernel is 1 + 3ab + 3(ab)^2 + (ab)^3, so the squared MMD is
    # 3 (dE y)^2 + 3 (dE y^2)^2 + (dE y^3)^2 with differences m, m^2 and m^3 + 3m of the moments.
    m, rng = 0.5, np.random.default_rng(2)
    expected = 3 * m**2 + 3 * m**4 + (m**3 + 3 * m) ** 2
    x, y = rng.standard_normal((20_000, 1)), rng.standard_normal((20_000, 1)) + m
    assert kernel_distance(x, y, 60, 300, rng) == pytest.approx(expected, rel=0.1)


def test_pixel_distances_with_floor():
    pipeline = FakePipeline(shape=(4, 4, 1), rows={"train": 1500, "eval": 297})
    metrics = ["energy_distance", "kid", "fd"]
    evaluator = FeatureDistance(
        Pixels(), 297, metrics, floor_pairs=3, subsets=5, subset_size=297, batch=100, cache=False
    )
    same, far = evaluator(fake_run(pipeline)), evaluator(fake_run(pipeline, shift=1.0))
    assert list(same) == [f"{m}_pixels_297{end}" for end in ("", "_floor") for m in metrics]
    assert same["energy_distance_pixels_297"] < 2 * same["energy_distance_pixels_297_floor"]
    assert same["fd_pixels_297"] < 2 * same["fd_pixels_297_floor"] and abs(same["kid_pixels_297"]) < 0.1
    assert far["fd_pixels_297"] == pytest.approx(16, rel=0.3)  # 16 pixels shifted by 1
    assert far["kid_pixels_297"] > 1
    assert pipeline.drawn[:2] == [("eval", 297), ("train", 297)]


def test_features_are_named_by_their_network():
    network = SimpleNamespace(name="first_pixel")
    features = type("First", (), {"name": network.name, "__call__": lambda self, x: x.reshape(len(x), -1)[:, :2]})()
    scores = FeatureDistance(features, count=50, floor_pairs=0, cache=False)(fake_run(FakePipeline((2, 2, 1))))
    assert list(scores) == ["fd_first_pixel_50", "kid_first_pixel_50"]


def test_rows_that_are_no_images():
    with pytest.raises(UsageError, match=r"shape \(2,\)"):
        FeatureDistance(Pixels(), count=50).check(FakePipeline())
    FeatureDistance(Pixels(), count=50).check(FakePipeline((4, 4, 1)))
