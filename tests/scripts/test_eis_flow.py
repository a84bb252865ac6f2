"""A flow behind the predictor: densities of its draws, and predictions where its posterior is known in closed form."""

from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from domains.eis import CELL, NAMES, POINTS, SWAP, canonical, cells_of, default_frequencies, from_places, impedance
from domains.eis_noise import noisy
from domains.eis_spectrum import Spectrum
from evaluation.eis_oracle import flat
from evaluation.eis_prediction import ordered
from evaluation.eis_predictor import EISParameterCompleter, ProbabilisticEISPredictor
from models.eis_flow import EISFlow
from models.eis_predictor import EISPredictor
from runtime.errors import UsageError
from scripts.eis_flow import FlowPredictor
from solvers.heun import Heun
from solvers.likelihood import log_likelihood
from solvers.rk4 import RK4

CIRCUIT = {"Rsh": 460.0, "Ra": 1200.0, "Rb": 700.0, "Ca": 3e-7, "Cb": 5e-6}
FREQUENCIES = default_frequencies(30)
SMALL: dict[str, Any] = {"shape": (30, 4), "hidden": 16, "width": 8, "slots": 4, "depth": 1}
normal: Any = multivariate_normal  # scipy's stub takes a number alone for the covariance


def moving(size: float = 0.15) -> EISFlow:
    """One that is no identity; by a large size one step would fold it."""
    mx.random.seed(0)
    net = EISFlow(**SMALL, flow_width=16, flow_depth=1)
    net.leave.weight = size * mx.random.normal(net.leave.weight.shape)
    return net


def measured(topology: str = "series", level: float = 0.01) -> Spectrum:
    z = impedance(np.array(list(CIRCUIT.values())), FREQUENCIES, topology)
    return Spectrum(FREQUENCIES, noisy(z, level, np.random.default_rng(0)), "cell")


def given(count: int) -> dict[str, float]:
    return dict(list(CIRCUIT.items())[:count])


@pytest.mark.parametrize("mask", [(0, 0, 0, 0, 0), (0, 1, 0, 0, 1)])
def test_draws_have_the_flows_density_and_the_known_stay(mask):
    network, known = moving(), mx.array([[1.0, 2.0, 3.0, 4.0, 5.0]]) * mx.array([mask])
    predictor, mask = FlowPredictor(network, RK4(10, grid="cosine")), mx.array([mask], mx.float32)
    context = mx.random.normal((1, 16), key=mx.random.key(1))
    places, log_q = predictor.sample(context, known, mask, 50, mx.random.key(0))
    repeated = [mx.repeat(value, 50, axis=0) for value in (context, mask)]
    want = predictor.objective.density_at(
        network, repeated[0], places[0], repeated[1], partial(log_likelihood, solver=predictor.solver)
    )
    np.testing.assert_allclose(np.array(log_q[0]), np.array(want), atol=5e-3)
    held = np.array(mask[0]) > 0
    np.testing.assert_array_equal(np.array(places[0])[:, held], np.array(known)[:, held].repeat(50, axis=0))
    assert (np.ptp(np.array(places[0])[:, ~held], axis=0) > 1).all()
    if not held.any():
        cell, inside = predictor.log_density(repeated[0], places[0])
        np.testing.assert_allclose(np.array(cell + inside)[:, 0], np.array(want), atol=5e-3)


def test_densities_of_draws_are_exact_however_few_the_steps():
    """Any density over that of the draws is 1 on average, a normal one of states here: the solver's own map decides."""
    predictor, nothing = FlowPredictor(moving(0.05), Heun(1)), mx.zeros((1, 5))
    context = mx.random.normal((1, 16), key=mx.random.key(1))
    places, log_q = predictor.sample(context, nothing, nothing, 20_000, mx.random.key(0))
    states = np.array(EISFlow.to_state(places[0]), np.float64)
    target = norm.logpdf(states, np.median(states, axis=0), 0.6) - norm.logpdf(states) - np.log(POINTS)
    ratio = np.exp(target.sum(axis=1) - np.array(log_q[0], np.float64))
    error = ratio.std() / np.sqrt(len(ratio))
    assert error < 0.02 and ratio.mean() == pytest.approx(1, abs=4 * error)
    exact = predictor.log_density(mx.repeat(context, 100, axis=0), places[0, :100])[1][:, 0]
    assert np.abs(np.array(exact - log_q[0, :100])).max() > 0.01  # that of another map


class Normal(EISFlow):
    """A flow in closed form: its states are normal, those of the known ones given."""

    mean = np.array([-0.3, 0.4, 0.3, -0.8, 0.3])
    root = np.array([[0.3, 0, 0, 0, 0], [0, 0.5, 0, 0, 0], [0.1, 0.2, 0.2, 0, 0], [0, -0.2, 0, 0.3, 0],
                     [0.1, 0, -0.3, 0, 0.2]])  # fmt: skip

    def encode(self, x, known, known_mask):
        return mx.concatenate([known, known_mask], axis=1)

    def conditional(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean and covariance of the unknown states given the context (10,) of what is known, and which they are."""
        unknown = row[5:] == 0
        held = np.array(self.to_state(mx.array(row[:5])), np.float64)[~unknown]
        whole = self.root @ self.root.T
        gain = whole[unknown][:, ~unknown] @ np.linalg.inv(whole[~unknown][:, ~unknown])
        mean = self.mean[unknown] + gain @ (held - self.mean[~unknown])
        return mean, whole[unknown][:, unknown] - gain @ whole[~unknown][:, unknown], unknown

    def velocity(self, x, times, context, known_mask, key=None):
        mean, covariance, unknown = self.conditional(np.array(context[0], np.float64))
        spread, vectors = np.linalg.eigh(covariance)
        t, where = float(times[0, 0].item()), np.flatnonzero(unknown)
        gain = (t * spread - (1 - t)) / ((1 - t) ** 2 + t**2 * spread)
        matrix, shift = np.zeros((5, 5)), np.zeros(5)
        matrix[np.ix_(where, where)] = (vectors * gain) @ vectors.T
        shift[where] = mean - t * matrix[np.ix_(where, where)] @ mean
        return x @ mx.array(matrix.T.astype(np.float32)) + mx.array(shift.astype(np.float32))


def closed_form() -> Normal:
    return Normal(**SMALL | {"hidden": 10}, flow_width=8, flow_depth=1)


@pytest.mark.parametrize("count", range(5))
def test_predictions_say_what_the_flow_says(count):
    """Marginals, joint probabilities, entropy and intervals against the normal distribution's own draws."""
    model, known = closed_form(), given(count)
    predictor = ProbabilisticEISPredictor(FlowPredictor(model, RK4(12, grid="cosine")), "series", samples=20_000)
    found = EISParameterCompleter(predictor).predict_missing_parameters(known, measured(), top_k=5, refine=False)
    row = np.array([np.log(CIRCUIT[n] / from_places(np.zeros(5))[i]) / CELL[i] * (n in known) for i, n in
                    enumerate(NAMES)] + [float(n in known) for n in NAMES])  # fmt: skip
    mean, covariance, unknown = model.conditional(row)
    states = np.random.default_rng(0).multivariate_normal(mean, covariance, 20_000)  # as many: fewer see fewer cells
    places = np.tile(row[:5], (len(states), 1))
    places[:, unknown] = POINTS * norm.cdf(states) - 0.5
    parameters = canonical(from_places(places)) if found.merged else from_places(places)
    assert found.merged == (count < 2) and found.known == known
    share = np.bincount(flat(ordered(places, found.merged)[1])) / len(places)
    for circuit in found.circuits:
        values = np.array([[circuit.values[name] for name in NAMES]])
        cell = ordered(np.log(values / from_places(np.zeros(5))) / CELL, found.merged)[1]
        assert circuit.probability == pytest.approx(share[flat(cell)[0]], abs=0.02)
        assert np.isfinite([circuit.predicted_relative, circuit.relative]).all()
    assert found.circuits[0].probability == pytest.approx(share.max(), abs=0.02)
    positive = share[share > 0]
    assert found.entropy == pytest.approx(-(positive * np.log(positive)).sum(), abs=0.1)
    for i in np.flatnonzero(unknown):
        cells = np.bincount(ordered(places, found.merged)[1][:, i], minlength=POINTS) / len(places)
        np.testing.assert_allclose(found.marginals[NAMES[i]], cells, atol=0.015)
        interval = np.quantile(parameters[:, i], [0.05, 0.95])
        np.testing.assert_allclose(found.estimates[NAMES[i]].most, interval, rtol=0.06)
    if count == 4:  # one number: the cell's probability by scipy
        edges = norm.ppf(np.arange(POINTS + 1) / POINTS)
        want = np.diff(normal(mean, covariance).cdf(edges[1:-1, None]), prepend=0, append=1)
        np.testing.assert_allclose(found.marginals["Cb"], want, atol=0.015)


@pytest.mark.parametrize("count", range(5))
def test_the_likelihood_makes_flow_and_heads_alike(count):
    """Both networks are untrained: what they propose is not what decides."""
    mx.random.seed(1)
    answers = []
    for model in (FlowPredictor(moving()), EISPredictor(**SMALL, mixture=2)):
        predictor = ProbabilisticEISPredictor(model, "series", samples=600, drawn=48)
        answers.append(predictor.predict([measured()], given(count), top_k=3)[0])
    flow, heads = answers
    assert flow.effective > 50 and flow.drawn == 48 and 0 < flow.network_effective <= 48
    assert flow.log_evidence == pytest.approx(heads.log_evidence, abs=0.5)
    for name, one in heads.estimates.items():
        low, high = np.log(one.most)
        assert abs(np.log(flow.estimates[name].median / one.median)) < 0.4 * (high - low)
    assert flow.circuits[0].values == pytest.approx(heads.circuits[0].values, rel=0.1)


def test_the_greedy_circuit_is_where_no_noise_is_carried():
    predictor = ProbabilisticEISPredictor(FlowPredictor(closed_form(), RK4(8)), "series")
    mean, _, unknown = closed_form().conditional(np.zeros(10))
    found = predictor.guess([measured()])[0]
    np.testing.assert_allclose(found, from_places(POINTS * norm.cdf(mean) - 0.5), rtol=1e-3)
    known = predictor.guess([measured(), measured()], given(2))
    np.testing.assert_allclose(known[:, :2], np.tile([460.0, 1200.0], (2, 1)), rtol=1e-5)
    assert unknown.all() and known.shape == (2, 5)


def test_a_flow_has_no_grid():
    flow = FlowPredictor(moving())
    with pytest.raises(UsageError, match=r"network with cells\(...\), such as model=eis_predictor; FlowPredictor has"):
        ProbabilisticEISPredictor(flow, "series", "grid")
    with pytest.raises(UsageError, match="no probabilities of grid points"):
        flow.log_density(mx.zeros((1, 16)), mx.zeros((1, 5)), within=False)


def test_twins_are_far_from_the_circuit():
    """Else merging would not show in the closed form's test."""
    places = np.log(np.array(list(CIRCUIT.values())) / from_places(np.zeros(5))) / CELL
    assert (cells_of(places) != cells_of(places[SWAP])).any()
