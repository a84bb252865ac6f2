"""Interpolants: ends, derivatives, and conversions between what a model may predict; time samplers."""

import itertools

import mlx.core as mx
import numpy as np
import pytest
from scipy import stats

from losses.paths import VP, CondOT, Cosine, LogitNormal, Polynomial, Stratified, Uniform
from runtime.errors import UsageError

PATHS = [CondOT(), Cosine(), Polynomial(2.0), Polynomial(3.5), VP()]
NAMED = pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
RNG = np.random.default_rng(0)
X0, X1 = (mx.array(RNG.normal(size=(9, 2, 3)).astype(np.float32)) for _ in range(2))
T = mx.array(np.linspace(0.2, 0.9, 9, dtype=np.float32))


@NAMED
def test_goes_from_noise_to_data(path):
    start, end = path.point(X0, X1, mx.array(0.0)), path.point(X0, X1, mx.array(1.0))
    loose = 0.02 if isinstance(path, VP) else 1e-6  # VP starts at alpha = .0066 and stops 1e-5 before its end
    assert mx.abs(start - X0).max().item() < loose
    assert mx.abs(end - X1).max().item() < loose


@NAMED
def test_velocity_is_the_derivative_of_the_point(path):
    step = 1e-2

    def point(t):
        return path.point(X0, X1, t)

    difference = (8 * (point(T + step) - point(T - step)) - (point(T + 2 * step) - point(T - 2 * step))) / (12 * step)
    assert mx.abs(path.velocity(X0, X1, T) - difference).max().item() < 2e-3
    tangent = mx.jvp(point, [T], [mx.ones_like(T)])[1][0]
    assert mx.abs(path.velocity(X0, X1, T) - tangent).max().item() < 2e-5


@pytest.mark.parametrize("path", [VP(), Cosine()], ids=["VP", "Cosine"])
def test_variance_is_preserved(path):
    alpha, sigma, d_alpha, d_sigma = path.coefficients(T)
    assert mx.abs(alpha**2 + sigma**2 - 1).max().item() < 1e-6
    assert mx.abs(alpha * d_alpha + sigma * d_sigma).max().item() < 1e-5


def test_vp_alpha_against_the_integral_of_its_rate():
    from scipy.integrate import quad

    for t in (0.0, 0.3, 0.9):
        integral = quad(lambda s: 0.1 + s * 19.9, 0, 1 - t)[0]
        assert abs(VP().coefficients(mx.array(t))[0].item() - np.exp(-0.5 * integral)) < 1e-5


@NAMED
@pytest.mark.parametrize("given, wanted", list(itertools.product(["velocity", "x", "eps"], repeat=2)))
def test_conversions_are_exact_inside(path, given, wanted):
    x_t = path.point(X0, X1, T)
    true = {"velocity": path.velocity(X0, X1, T), "x": X1, "eps": X0}
    found = path.convert(true[given], given, wanted, x_t, T)
    assert mx.abs(found - true[wanted]).max().item() < 5e-4


@NAMED
@pytest.mark.parametrize("given", ["velocity", "x", "eps"])
def test_conversions_stay_finite_at_the_ends(path, given):
    for t in (0.0, 1.0):
        for wanted in ("velocity", "x", "eps"):
            assert mx.isfinite(path.convert(X1, given, wanted, X0, mx.array(t))).all().item()


def test_wrong_parameters_are_refused():
    for make in (lambda: Polynomial(0.5), lambda: VP(1.0, 0.5), lambda: LogitNormal(0.0, 0.0)):
        with pytest.raises(UsageError, match="got"):
            make()


@pytest.mark.parametrize(
    "sampler, law",
    [(Uniform(), stats.uniform()), (Stratified(), stats.uniform()), (LogitNormal(0.4, 1.6), None)],
    ids=["uniform", "stratified", "logit-normal"],
)
def test_times_follow_their_law(sampler, law):
    t = np.array(sampler(4000, mx.random.key(3)), np.float64)
    assert t.min() >= 0 and t.max() < 1
    if law is None:
        t, law = np.log(t / (1 - t)), stats.norm(0.4, 1.6)
    assert stats.kstest(t, law.cdf).pvalue > 1e-3


def test_strata_hold_one_time_each_in_random_order():
    t = np.array(Stratified()(64, mx.random.key(0)))
    assert (np.sort(np.floor(t * 64)) == np.arange(64)).all()
    assert abs(np.corrcoef(t, np.arange(64))[0, 1]) < 0.4
