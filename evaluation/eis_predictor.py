"""From measured spectra and known parameters to predictions: the checks, then the network, then the likelihood."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from domains.eis import ENDS, NAMES, POINTS, RS_SPAN, UNITS, check_topology, from_places, place_of
from domains.eis_noise import KINDS, check_kind
from domains.eis_spectrum import FEWEST, HIGH, LOW, Spectrum, outside
from evaluation.eis_likelihood import Problem
from evaluation.eis_posterior import Posterior, infer, over_grid, weighed
from evaluation.eis_prediction import Circuit, Prediction, estimates_of, summarise
from evaluation.eis_proposals import as_input, beam
from runtime.errors import UsageError, closest
from runtime.host import namespace, on_host
from runtime.one_thread import one_thread

Known = Mapping[str, float]
FEW = 100  # effective circuits below which a prediction says that it is rough
MISFIT = 1.5  # times the loudest noise, from which a prediction says that the circuits don't fit
LIKELIEST = "likeliest"  # of the kinds of noise
COVERED = 0.99  # of the network's probability, below which a grid's prediction says so


class ProbabilisticEISPredictor:
    """A network with all that makes predictions of it.

    model: as models.eis_predictor, or a flow as scripts.eis_flow wraps it, trained on `topology` with `prior`
    continuous or (no flow) grid. levels: least and largest relative noise. rs: the largest series resistance in ohm; 0:
    none. low, high: Hz. samples: weighted circuits of a prediction; drawn: those that the network proposes; width: of a
    grid's beam. On a CPU draws are made by NumPy, with the model's weights of when the predictor was made.
    """

    def __init__(self, model: Any, topology: str, prior: str = "continuous", levels: tuple[float, float] = (1e-3, 5e-2),
                 rs: float = 0.0, low: float = 1e-2, high: float = 1e7, samples: int = 1000, drawn: int = 64,
                 width: int = 256):  # fmt: skip
        check_topology(topology)
        if prior not in ("continuous", "grid"):
            raise UsageError(f"a predictor's prior must be continuous or grid, got {prior!r}.")
        if prior == "grid" and not hasattr(model, "cells"):
            raise UsageError(f"a predictor of the grid needs a network with cells(...), such as model=eis_predictor; "
                             f"{type(model).__name__} has none.")  # fmt: skip
        self.model, self.topology, self.prior, self.low, self.high = model, topology, prior, low, high
        self.levels, self.rs = levels, (rs / RS_SPAN, rs)
        self.samples, self.drawn, self.width = samples, drawn, width
        self.host = on_host(model) if prior == "continuous" else None  # a grid's beam is MLX's

    @one_thread()
    def predict(
        self, spectra: Sequence[Spectrum | None], known: Known | Sequence[Known] | None = None, top_k: int = 10,
        refine: bool = True, noise: float | None = None, seed: int = 0, kind: str = "modulus",
    ) -> list[Prediction]:  # fmt: skip
        """A prediction for each spectrum; None is no spectrum, whose prediction is the prior.

        known: {name: value} in ohm and farad, for all spectra or for each; "Rs" too. refine: False leaves the network's
        word as it is, True weighs it by the exact likelihood. noise: the relative level, where it is known. kind: of
        noise (domains.eis_noise), or "likeliest": the one under which the spectrum's probability is largest. Raises
        UsageError for unknown names, values outside the prior, and spectra that its circuits can't give.
        """
        if kind != LIKELIEST:
            check_kind(kind)
        elif self.prior == "grid" or not refine:
            raise UsageError("the likeliest kind of noise is told by the likelihood of circuits anywhere; needed: "
                             "refine=True and a predictor that is not of the grid, or a kind.")  # fmt: skip
        if top_k < 1:
            raise UsageError(f"top_k must be at least 1, got {top_k}.")
        many = [known or {}] * len(spectra) if known is None or isinstance(known, Mapping) else list(known)
        if len(many) != len(spectra):
            raise UsageError(f"known needs one entry for each of the {len(spectra)} spectra, got {len(many)}.")
        checked = [self.checked(given) for given in many]
        problems = [self.problem(spectrum, given, rs, noise) if spectrum is not None else None
                    for spectrum, (given, rs) in zip(spectra, checked, strict=True)]  # fmt: skip
        asked = [problem for problem in problems if problem is not None]
        kinds = KINDS if kind == LIKELIEST else (kind,)
        found = iter(self.best_of_kinds(asked, kinds, top_k, refine, seed) if asked else [])
        return [next(found) if problem is not None else self.without_spectrum(given, top_k, seed)
                for problem, (given, _) in zip(problems, checked, strict=True)]  # fmt: skip

    @one_thread()
    def guess(self, spectra: Sequence[Spectrum], known: Known | None = None) -> np.ndarray:
        """The network's greedy guess (B, 5) in ohm and farad, of spectra without further checks."""
        given, rs = self.checked(known or {})
        problems = [Problem(spectrum, self.topology, given, self.levels, rs) for spectrum in spectra]
        if hasattr(self.model, "greedy"):
            return from_places(np.array(self.model.greedy(*self.encoded(self.model, problems)), np.float64))
        return from_places(beam(self.model, *self.encoded(self.model, problems), 1, self.prior != "grid")[0][:, 0])

    def checked(self, known: Known) -> tuple[dict[int, float], tuple[float, float]]:
        """{parameter: value} and the range of Rs; raises UsageError for what is no parameter or no value of one."""
        found, rs = {}, self.rs
        for name, value in known.items():
            if name not in (*NAMES, "Rs"):
                raise UsageError(f"there is no parameter {name!r}; nearest: {closest(name, [*NAMES, 'Rs'])}.")
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if name == "Rs":
                if not number or not 0 <= value < math.inf:
                    raise UsageError(f"Rs must be a resistance of at least 0 ohm, got {value!r}.")
                rs = (float(value), float(value))
                continue
            i = NAMES.index(name)
            low, high = LOW[i], HIGH[i]
            if not number or not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
                raise UsageError(f"{name} must be a number from {low:.3g} to {high:.3g} {UNITS[i]}, got {value!r}.")
            found[i] = float(value)
        return found, rs

    def problem(
        self, spectrum: Spectrum, known: dict[int, float], rs: tuple[float, float], noise: float | None
    ) -> Problem:
        """What is to be inferred; raises UsageError for a spectrum that circuits of the prior can't give."""
        if reason := outside(spectrum, self.topology, self.low, self.high, FEWEST, rs=rs[1]):
            raise UsageError(f"the spectrum {spectrum.name or 'given'} can't be predicted: {reason}")
        if noise is not None and not 0 < noise < 1:
            raise UsageError(f"noise must be a relative level between 0 and 1, such as 0.01, got {noise!r}.")
        return Problem(spectrum, self.topology, known, (noise, noise) if noise else self.levels, rs)

    def encoded(self, network: Any, problems: list[Problem]) -> tuple[Any, Any, Any]:
        """Contexts (B, hidden), known places (B, 5) and mask (B, 5), arrays of the network's kind.

        A given Rs is taken off what the network sees.
        """
        seen = [p.spectrum if p.rs_free or not p.rs[0] else Spectrum(p.spectrum.frequencies, p.spectrum.z - p.rs[0])
                for p in problems]  # fmt: skip
        given = as_input(seen, [p.known for p in problems], network.shape[0])
        x, known, mask = given if network is self.host else map(mx.array, given)
        return network.encode(x, known, mask), known, mask

    def answer(self, problems: list[Problem], top_k: int, refine: bool, seed: int) -> list[Prediction]:
        """Predictions of checked problems: the network for all at once, then one after the other."""
        network = self.model if self.host is None else self.host
        context, known, mask = self.encoded(network, problems)
        if self.prior == "grid":
            places, log_q = beam(network, context, known, mask, self.width, within=False)
        else:
            count = self.drawn if refine else self.samples
            drawn = network.sample(context, known, mask, count, mx.random.key(seed))
            mx.eval(drawn)  # of MLX both at once
            places, log_q = (np.array(part, np.float64) for part in drawn)
        found, candidates = [], []
        for row, problem in enumerate(problems):
            rng = np.random.default_rng([seed, row])
            own = places[row].copy()
            own[:, list(problem.known)] = [place_of(*item) for item in problem.known.items()]  # not in float32
            posterior, weights = self.posterior(problem, own, log_q[row], refine, rng)
            prediction, kept = summarise(problem, posterior, own, weights, top_k)
            prediction.notes = self.notes(problem, prediction, refine)
            found.append(prediction)
            candidates.append(np.concatenate([kept, np.repeat(kept[-1:], top_k - len(kept), axis=0)]))
        xp = namespace(context)
        here = xp.broadcast_to(context[:, None], (len(problems), top_k, context.shape[-1]))
        words = np.array(network.log_residual(here, xp.array(np.array(candidates), xp.float32)))
        for prediction, said in zip(found, words, strict=True):
            for circuit, value in zip(prediction.circuits, said, strict=False):
                circuit.predicted_relative = float(value)
        return found

    def best_of_kinds(
        self, problems: list[Problem], kinds: Sequence[str], top_k: int, refine: bool, seed: int
    ) -> list[Prediction]:
        """`answer` under the kind of noise that makes each spectrum likeliest, with ln p(spectrum) under each."""
        each = [self.answer([replace(one, kind=kind) for one in problems], top_k, refine, seed) for kind in kinds]
        if len(kinds) == 1:
            return each[0]
        found = []
        for answers in zip(*each, strict=True):
            evidence = {one.noise_kind: float(one.log_evidence) for one in answers if one.log_evidence is not None}
            best = next(one for one in answers if one.noise_kind == max(evidence, key=evidence.__getitem__))
            best.noise_evidence = evidence
            found.append(best)
        return found

    def posterior(
        self, problem: Problem, places: np.ndarray, log_q: np.ndarray, refine: bool, rng: np.random.Generator
    ) -> tuple[Posterior, np.ndarray]:
        """The posterior, and the network's own weights (N,) of its places (N, 5)."""
        if self.prior == "grid":
            own = np.exp(log_q)
            draws, weights = over_grid(problem, places[own > 0], rng)
            weights = weights if refine else own[own > 0] / own.sum()
            return Posterior(draws.places, draws.rs, weights, draws.misfit), own
        own = np.full(len(places), 1 / len(places))
        if not refine:
            draws = weighed(problem, places, log_q, rng)
            return Posterior(places, draws.rs, own, draws.misfit, len(own), draws.effective, len(own)), own
        if not problem.free:
            places = np.repeat(places[:1], self.samples, axis=0)
            return infer(problem, places, np.zeros(self.samples), 0, rng, most_rounds=0), own
        return infer(problem, places, log_q, self.samples, rng), own

    def notes(self, problem: Problem, prediction: Prediction, refine: bool) -> list[str]:
        """What the user should know of a prediction, in sentences."""
        found = []
        if problem.symmetric:
            found.append("The membranes can't be told apart; a is the one with the smaller time constant.")
        if not refine:
            found.append("This is the network's word alone, not weighed by the likelihood.")
        elif prediction.effective is not None and prediction.effective < FEW:
            found.append(f"The weighted circuits are worth {prediction.effective:.0f} independent ones: intervals and "
                         "probabilities are rough.")  # fmt: skip
        if self.prior == "grid" and prediction.covered < COVERED:
            found.append(f"The circuits weighed hold {prediction.covered:.0%} of the network's probability.")
        points, most = len(problem.spectrum.z), self.model.shape[0]
        if points > most:
            found.append(f"The network saw {most} of the {points} points, the likelihood all.")
        left, loudest = prediction.noise, problem.levels[1]
        if left is not None and left.median > MISFIT * loudest:
            found.append(f"The circuits miss the spectrum by {left.median:.1%} where noise of at most {loudest:.1%} is "
                         "assumed: it may be that of another circuit.")  # fmt: skip
        return found

    def without_spectrum(self, known: dict[int, float], top_k: int, seed: int) -> Prediction:
        """The prior, given what is known; its circuits are some of the equally likely ones, labels as they come."""
        free = [i for i in range(5) if i not in known]
        count = min(top_k, POINTS ** len(free))
        chosen = np.random.default_rng(seed).choice(POINTS ** len(free), count, replace=False)
        places = np.zeros((count, 5))
        if free:
            places[:, free] = np.stack(np.unravel_index(chosen, (POINTS,) * len(free)), axis=-1)
        for i, value in known.items():
            places[:, i] = place_of(i, value)
        circuits = [Circuit(dict(zip(NAMES, map(float, row), strict=True)), 1 / POINTS ** len(free))
                    for row in from_places(places)]  # fmt: skip
        even = from_places(np.tile(np.linspace(*ENDS, 10_001)[:, None], 5))
        (estimates,) = estimates_of(np.full(len(even), 1 / len(even)), {NAMES[i]: even[:, i] for i in free})
        entropy = len(free) * math.log(POINTS)
        said = ["There is no spectrum: this is the prior, by which every circuit is as likely as any other; what is "
                "known says nothing about the rest."]  # fmt: skip
        return Prediction(self.topology, "", False, {NAMES[i]: value for i, value in known.items()}, False, circuits,
                          {NAMES[i]: [1 / POINTS] * POINTS for i in free}, estimates, {}, entropy, entropy,
                          notes=said)  # fmt: skip


class EISParameterCompleter:
    """Fills in what is not known of one circuit; a `ProbabilisticEISPredictor` with one question's interface."""

    def __init__(self, predictor: ProbabilisticEISPredictor):
        self.predictor = predictor

    def predict_missing_parameters(
        self, known_params: Known | None = None,
        spectrum: Spectrum | tuple[Sequence[float], Sequence[complex]] | None = None, top_k: int = 10,
        refine: bool = True, noise: float | None = None, seed: int = 0, kind: str = "modulus",
    ) -> Prediction:  # fmt: skip
        """The prediction from 0 to 5 known parameters ({"Rsh": 460}, ohm and farad; "Rs" too) and a spectrum.

        spectrum: a Spectrum, or frequencies in Hz and impedances in ohm; None gives the prior and says so. The rest and
        the errors are those of `ProbabilisticEISPredictor.predict`.
        """
        if spectrum is not None and not isinstance(spectrum, Spectrum):
            if not isinstance(spectrum, tuple | list) or len(spectrum) != 2:
                raise UsageError(f"spectrum must be a Spectrum or (frequencies, impedances), got {type(spectrum)}.")
            spectrum = Spectrum(np.asarray(spectrum[0]), np.asarray(spectrum[1]))
        return self.predictor.predict([spectrum], known_params, top_k, refine, noise, seed, kind)[0]
