"""Predictions: what is asked and refused, what is known is held, probabilities add up, the oracle on grid networks."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest

from domains.eis import (
    NAMES,
    POINTS,
    SWAP,
    canonical,
    canonical_indices,
    default_frequencies,
    from_places,
    impedance,
    on_grid,
)
from domains.eis_noise import noisy
from domains.eis_spectrum import Spectrum
from evaluation.eis_likelihood import Problem
from evaluation.eis_oracle import GridOracle
from evaluation.eis_prediction import ordered
from evaluation.eis_predictor import EISParameterCompleter, ProbabilisticEISPredictor
from models.eis_predictor import EISPredictor
from runtime import one_thread
from runtime.errors import UsageError

CIRCUIT = {"Rsh": 460.0, "Ra": 4820.0, "Rb": 2210.0, "Ca": 2e-6, "Cb": 9e-6}
FREQUENCIES = default_frequencies(30)


def network() -> EISPredictor:
    mx.random.seed(0)
    return EISPredictor(shape=(30, 4), hidden=16, width=8, slots=4, depth=1, mixture=2)


def measured(topology: str = "parallel", level: float = 0.01, rs: float = 0.0) -> Spectrum:
    z = impedance(np.array(list(CIRCUIT.values())), FREQUENCIES, topology, rs)
    return Spectrum(FREQUENCIES, noisy(z, level, np.random.default_rng(0)), "cell")


@pytest.fixture(scope="module")
def completer() -> EISParameterCompleter:
    return EISParameterCompleter(ProbabilisticEISPredictor(network(), "parallel", rs=300.0, samples=400, drawn=32))


@pytest.mark.parametrize("count", range(6))
def test_what_is_known_is_held_and_probabilities_add_up(completer, count):
    known = dict(list(CIRCUIT.items())[:count])
    found = completer.predict_missing_parameters(known, measured(rs=20.0), top_k=500)
    free = [name for name in NAMES if name not in known]
    assert found.known == known and found.merged == (count < 2)
    assert all(circuit.values[name] == value for circuit in found.circuits for name, value in known.items())
    probability = [circuit.probability for circuit in found.circuits]
    assert sum(probability) == pytest.approx(1, abs=0.02) and probability == sorted(probability, reverse=True)
    assert list(found.marginals) == free and set(found.estimates) == {*free, "Rs"}
    for name in free:
        assert sum(found.marginals[name]) == pytest.approx(1)
        one = found.estimates[name]
        assert one.most[0] <= one.half[0] <= one.median <= one.half[1] <= one.most[1]
    assert 0 <= found.entropy <= found.entropy_of_prior + 1e-9
    assert found.estimates["Rs"].most[0] < 20.5 and found.estimates["Rs"].most[1] > 19.5
    assert found.effective > 50 and found.noise.median == pytest.approx(0.01, rel=0.3)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["circuits"][0]["values"].keys() == {*NAMES, "Rs"}


def test_one_missing_parameter_is_found_within_its_interval_and_its_cell(completer):
    known = {name: value for name, value in CIRCUIT.items() if name != "Ra"}
    found = completer.predict_missing_parameters(known | {"Rs": 20.0}, (FREQUENCIES, measured(rs=20.0).z), top_k=3)
    interval = found.estimates["Ra"].most
    assert interval[0] < 4820 < interval[1] and interval[1] / interval[0] < 2
    assert "Rs" not in found.estimates and found.circuits[0].values["Rs"] == 20.0
    best = found.circuits[0]
    z = impedance(np.array([best.values[name] for name in NAMES]), FREQUENCIES, "parallel", 20.0)
    seen = measured(rs=20.0).z
    assert best.residual == pytest.approx(np.abs(z - seen).mean())
    assert best.relative == pytest.approx(math.log10(np.abs(z - seen).mean() / np.abs(seen).mean()))
    assert math.isfinite(best.predicted_relative)


def test_a_given_series_resistance_is_taken_off_what_the_network_sees(completer):
    without, predictor = measured(), completer.predictor
    problems = [Problem(Spectrum(FREQUENCIES, without.z + rs), "parallel", {}, rs=(rs, rs)) for rs in (0.0, 20.0)]
    contexts = np.array(predictor.encoded(predictor.host, problems)[0])
    np.testing.assert_allclose(contexts[0], contexts[1], atol=1e-5)


def test_draws_by_numpy_are_those_by_mlx():
    """The network's word alone, where rounding may put a draw or two into another cell; and its words on circuits."""
    predictor = ProbabilisticEISPredictor(network(), "parallel", rs=300.0, samples=400)
    spectra, found = [measured(), measured(rs=9.0)], []
    for host in (predictor.host, None):
        predictor.host = host
        found.append(predictor.predict(spectra, {"Ra": 4820.0}, 400, refine=False))
    assert all(one.to_dict() != other.to_dict() for one, other in zip(*found, strict=True))  # two ways indeed
    for one, other in zip(*found, strict=True):
        for name, marginal in other.marginals.items():
            np.testing.assert_allclose(one.marginals[name], marginal, atol=2.5 / 400)
        said = [{round(circuit.values["Ca"] * 1e12): circuit.predicted_relative for circuit in prediction.circuits}
                for prediction in (one, other)]  # fmt: skip
        both = [ca for ca in said[0] if ca in said[1]]
        assert len(both) > 0.9 * len(said[1]) > 100
        np.testing.assert_allclose([said[0][ca] for ca in both], [said[1][ca] for ca in both], atol=1e-3)


def test_a_prediction_takes_one_thread_of_numpys_blas(completer, monkeypatch):
    state, seen, own = {"count": 3}, [], completer.predictor.host.sample
    monkeypatch.setattr(
        one_thread, "openblas", lambda: (lambda: state["count"], lambda count: state.update(count=count))
    )
    monkeypatch.setattr(completer.predictor.host, "sample", lambda *given: seen.append(state["count"]) or own(*given),
                        raising=False)  # fmt: skip
    completer.predict_missing_parameters({}, measured())
    assert seen == [1] and state["count"] == 3


def test_cells_in_order_hold_the_circuits_or_their_twins():
    places = np.random.default_rng(0).uniform(-0.5, 11.5, (5000, 5))
    found, cells = ordered(places, True)
    np.testing.assert_array_equal(cells, canonical_indices(cells))
    np.testing.assert_array_equal(cells, np.clip(np.rint(found), 0, 11))
    same, twin = (found == places).all(axis=1), (found == places[:, SWAP]).all(axis=1)
    assert (same ^ twin).all() and 0.3 < same.mean() < 0.7
    late = canonical(from_places(found)) != from_places(found)
    assert 0 < late.any(axis=1).mean() < 0.1  # the few whose cell lies on both sides of the order


def test_merged_circuits_are_in_canonical_order_and_unmerged_as_they_are():
    model = network()
    for known in ({}, {"Ca": 2e-6}):
        predictor = ProbabilisticEISPredictor(model, "series", samples=300, drawn=32)
        found = predictor.predict([measured("series")], known)[0]
        values = np.array([[circuit.values[name] for name in NAMES] for circuit in found.circuits])
        ordered = (canonical(values) == values).all()
        assert found.merged == (not known)
        assert ordered or known
        if found.merged:
            cells = np.rint(np.log(values / values.min(axis=0)))  # no circuit stands twice, as its twin
            assert len(np.unique(canonical(values), axis=0)) == len(cells)


def test_without_a_spectrum_it_is_the_prior_and_says_so(completer):
    found = completer.predict_missing_parameters({"Rsh": 460, "Ra": 4820, "Rb": 2210}, top_k=200)
    assert "no spectrum" in found.notes[0] and not found.spectrum
    assert len(found.circuits) == 144 and all(c.probability == 1 / 144 for c in found.circuits)
    assert found.entropy == found.entropy_of_prior == pytest.approx(2 * math.log(12))
    assert found.marginals == {"Ca": [1 / 12] * 12, "Cb": [1 / 12] * 12}
    assert found.estimates["Ca"].median == pytest.approx(math.sqrt(1e-7 * 5e-5), rel=1e-3)
    assert len(completer.predict_missing_parameters({}, top_k=7).circuits) == 7
    assert completer.predict_missing_parameters(CIRCUIT).circuits[0].probability == 1


def test_a_grid_network_weighed_by_the_likelihood_is_the_oracle():
    """Three known, so that its beam holds every circuit that is left."""
    truth = np.array([5, 8, 6, 4, 9])
    z = noisy(impedance(on_grid(truth), FREQUENCIES, "series"), 0.05, np.random.default_rng(1))
    known = {name: float(value) for name, value in zip(NAMES[:3], on_grid(truth), strict=False)}
    predictor = ProbabilisticEISPredictor(network(), "series", "grid", (0.05, 0.05), width=200)
    found = predictor.predict([Spectrum(FREQUENCIES, z)], known, top_k=144)[0]
    oracle = GridOracle(FREQUENCIES, "series", 0.05)
    want = np.exp(oracle.log_posterior(z[None], {i: truth[i : i + 1] for i in range(3)})[0])
    for circuit in found.circuits[:10]:
        cell = np.rint(np.array([_place(name, circuit.values[name]) for name in NAMES])).astype(int)
        assert circuit.probability == pytest.approx(want[np.ravel_multi_index(tuple(cell), (POINTS,) * 5)], abs=1e-6)
    assert sum(c.probability for c in found.circuits) == pytest.approx(1)
    assert found.covered == pytest.approx(1, abs=1e-3) and found.effective is None
    alone = predictor.predict([Spectrum(FREQUENCIES, z)], known, top_k=144, refine=False)[0]
    assert sum(c.probability for c in alone.circuits) == pytest.approx(1) and len(alone.circuits) == 144
    assert all(c.probability == pytest.approx(c.network_probability or 0, rel=1e-3) for c in alone.circuits)
    by_cell = {tuple(c.values.items()): c.network_probability for c in alone.circuits}
    assert all(by_cell[tuple(c.values.items())] == c.network_probability for c in found.circuits)
    assert "network's word alone" in alone.notes[0]


def test_a_grid_networks_swapped_circuits_are_one_with_both_probabilities():
    truth = np.array([5, 8, 6, 4, 9])
    z = noisy(impedance(on_grid(truth), FREQUENCIES, "series"), 0.05, np.random.default_rng(1))
    model = network()
    predictor = ProbabilisticEISPredictor(model, "series", "grid", (0.05, 0.05), width=POINTS**4)
    known = {"Rsh": float(on_grid(truth)[0])}
    found = predictor.predict([Spectrum(FREQUENCIES, z)], known, top_k=3)[0]
    oracle = GridOracle(FREQUENCIES, "series", 0.05)
    posterior = np.exp(oracle.log_posterior(z[None], {0: truth[:1]})[0])
    cells = canonical_indices(oracle.indices)
    for circuit in found.circuits:
        cell = np.rint([_place(name, circuit.values[name]) for name in NAMES]).astype(int)
        both = posterior[(cells == canonical_indices(cell)).all(axis=1)].sum()
        assert circuit.probability == pytest.approx(both, abs=1e-6)
    assert "can't be told apart" in found.notes[0]


def _place(name: str, value: float) -> float:
    i = NAMES.index(name)
    return float(
        np.log(value / from_places(np.zeros(5))[i]) / np.log(from_places(np.ones(5)) / from_places(np.zeros(5)))[i]
    )


def test_the_same_seed_gives_the_same_prediction_and_spectra_of_unequal_length_go_together(completer):
    one = measured(rs=20.0)
    other = Spectrum(one.frequencies[::2], one.z[::2], "half")
    first = completer.predictor.predict([one, None, other], seed=3)
    again = completer.predictor.predict([one, None, other], seed=3)
    assert [p.to_dict() for p in first] == [p.to_dict() for p in again]
    assert [p.name for p in first] == ["cell", "", "half"]
    assert completer.predictor.predict([one], seed=4)[0].to_dict() != first[0].to_dict()
    guesses = completer.predictor.guess([one, other], {"Rsh": 460.0})
    assert guesses.shape == (2, 5) and np.allclose(guesses[:, 0], 460, rtol=1e-5)


def test_more_points_than_the_network_takes_and_a_spectrum_of_no_such_circuit_are_said():
    frequencies = default_frequencies(60)
    clean = impedance(np.array(list(CIRCUIT.values())), frequencies, "parallel")
    predictor = ProbabilisticEISPredictor(network(), "parallel", samples=200, drawn=32)
    odd = clean * (1 + 0.8 * (np.arange(60) % 7 == 0))
    notes = predictor.predict([Spectrum(frequencies, odd)], {"Rsh": 460.0})[0].notes
    assert any("saw 30 of the 60 points" in note for note in notes)
    assert any("that of another circuit" in note for note in notes)


@pytest.mark.parametrize(
    "known, message",
    [
        ({"Rhs": 460}, "no parameter 'Rhs'; nearest: Rs, Rsh"),
        ({"Rsh": -3.0}, "Rsh must be a number from 7.31 to 1.37e.04 ohm, got -3.0"),
        ({"Ca": 3.0}, "Ca must be a number from 7.54e-08 to 6.63e-05 F, got 3.0"),
        ({"Ra": math.nan}, "Ra must be a number .* got nan"),
        ({"Rb": "460"}, "Rb must be a number .* got '460'"),
        ({"Rb": True}, "got True"),
        ({"Rs": -1.0}, "Rs must be a resistance of at least 0 ohm, got -1.0"),
    ],
)
def test_mistakes_about_what_is_known(completer, known, message):
    with pytest.raises(UsageError, match=message):
        completer.predict_missing_parameters(known, measured())


def test_other_mistakes(completer):
    spectrum = measured()
    ask = completer.predict_missing_parameters
    with pytest.raises(UsageError, match="cell can't be predicted: .*units ohm and Hz"):
        ask({}, Spectrum(FREQUENCIES, spectrum.z * 1e6, "cell"))
    with pytest.raises(UsageError, match="cell can't be predicted: its frequencies reach"):
        ask({}, Spectrum(FREQUENCIES * 1e3, spectrum.z, "cell"))
    with pytest.raises(UsageError, match="top_k must be at least 1, got 0"):
        ask({}, spectrum, top_k=0)
    with pytest.raises(UsageError, match="noise must be a relative level"):
        ask({}, spectrum, noise=1.5)
    with pytest.raises(UsageError, match=r"Spectrum or \(frequencies, impedances\)"):
        ask({}, "cell.csv")
    with pytest.raises(UsageError, match="one entry for each of the 1 spectra, got 2"):
        completer.predictor.predict([spectrum], [{}, {}])
    with pytest.raises(UsageError, match="continuous or grid, got 'truths'"):
        ProbabilisticEISPredictor(completer.predictor.model, "series", "truths")
