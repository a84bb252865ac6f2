"""One measured spectrum through all the steps of the EIS predictor: a record for files, and a picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from domains.eis import NAMES, Impedance, canonical, impedance, invariants
from domains.eis_alarm import residual_alarm
from domains.eis_fit import levenberg_marquardt
from domains.eis_identify import SHARE, WIDTH, Quantity, Verdict, verdict
from domains.eis_kk import KramersKronig, lin_kk
from domains.eis_noise import white_squares
from domains.eis_spectrum import HALF_CELL, Spectrum
from evaluation.eis_prediction import Estimate, Prediction, plain
from evaluation.eis_predictor import EISParameterCompleter
from scripts.eis_export import impedance_py
from visualizers.eis import Picture

QUIETEST = 1e-4  # no instrument is better
ALIKE = 0.02  # known resistances of two membranes nearer than this are within their tolerances
SAME = 0.01  # of ln p: circuits nearer than this are one
DRAWS = 300  # of the posterior, for the picture's bands
SURE = 3.0  # nats from which on one kind of noise is told from another
STEPS = 30  # of a fit from the network's circuits


@dataclass
class Options:
    """How spectra are analysed.

    noise: None takes it from the scatter about the Kramers-Kronig fit. kind: of noise, or "likeliest"; None is modulus.
    The verdict and the alarm take noise as modulus noise of that level, whatever its kind.
    """

    top_k: int = 10
    polish: bool = True
    noise: float | None = None
    kind: str | None = None
    initial_guess: bool = False
    seed: int = 0


@dataclass(eq=False)
class Candidate:
    """A circuit: parameters (5,) and rs in ohm and farad, its z (F,), probability and misfit.

    residual: the mean of |dZ| / |Z|, squares: of its square, weighed by the kind of noise; predicted_relative: the
    network's word on log10(mean |dZ| / mean |Z|) of the circuit before it was fitted.
    """

    parameters: np.ndarray
    rs: float
    z: Impedance
    probability: float
    residual: float
    squares: float
    predicted_relative: float | None

    def record(self) -> dict[str, Any]:
        """Without the impedance."""
        values = dict(zip(NAMES, self.parameters, strict=True))
        return {"probability": self.probability, **values, "Rs": self.rs, "residual": self.residual,
                "predicted_relative": self.predicted_relative}  # fmt: skip


def analyse(
    spectrum: Spectrum, known: Mapping[str, float], completer: EISParameterCompleter, options: Options
) -> tuple[dict[str, Any], Picture]:
    """The record (plain numbers and texts) and the picture of a spectrum; known: values in ohm and farad by name.

    Raises UsageError for spectra and known values that the predictor's circuits can't have.
    """
    prediction = completer.predict_missing_parameters(known, spectrum, options.top_k, True, options.noise, options.seed,
                                                      options.kind or "modulus")  # fmt: skip
    topology, frequencies = prediction.topology, spectrum.frequencies
    kk = lin_kk(spectrum)
    noise, source = noise_level(kk, options.noise)
    found = candidates(spectrum, prediction, known, options.polish)
    best = min(found, key=lambda one: one.squares)
    given = tuple(name for name in NAMES if name in known)
    says = verdict(best.parameters, frequencies, topology, noise, given, best.rs, "Rs" in prediction.estimates)
    alarm = residual_alarm(frequencies, best.z, spectrum.z, noise, known)
    sentence = f"Near the best circuit: {says.sentence}" if branches(prediction, says) else says.sentence
    sentence = f"If the circuit were right: {sentence}" if alarm.raised else sentence
    record = {
        "name": spectrum.name, "points": len(spectrum.z), "frequencies_hz": [frequencies[0], frequencies[-1]],
        "topology": topology, "known": dict(known), "merged": prediction.merged,
        "noise": noise, "noise_from": source, "noise_kind": noise_kind(prediction, options.kind),
        "kramers_kronig": {"passes": kk.passes, "mu": kk.mu, "elements": kk.elements, "sentence": kk.sentence},
        "quantities": quantities(best, prediction, known, says),
        "verdict": {"sentence": sentence, "families": {
            name: circuits[[0, -1], NAMES.index(name)] for name, circuits in says.families.items()}},
        "alarm": {"raised": alarm.raised, "residual": alarm.residual, "allowed": alarm.allowed,
                  "frequency_hz": alarm.frequency, "sentence": alarm.sentence},
        "best": found.index(best), "polished": options.polish, "circuits": [one.record() for one in found],
        "entropy": prediction.entropy, "entropy_of_prior": prediction.entropy_of_prior,
        "effective": prediction.effective, "network_effective": prediction.network_effective,
        "notes": [*prediction.notes, *notes(prediction, says, known)],
        "marginals": prediction.marginals,
    }  # fmt: skip
    if options.initial_guess:
        record["impedance_py"] = [impedance_py(one.parameters, topology, one.rs) for one in found]
    rows = np.random.default_rng(options.seed).choice(len(prediction.weights), DRAWS, p=prediction.weights)
    picture = Picture(frequencies, spectrum.z, topology, best.parameters, best.rs, prediction.parameters[rows],
                      prediction.rs[rows], alarm, spectrum.name)  # fmt: skip
    return plain(record), picture


def noise_level(kk: KramersKronig, given: float | None) -> tuple[float, str]:
    """The noise on each part as a share of |Z|, and in words where it is from."""
    if given is not None:
        return given, "as given"
    found = max(kk.error / max(kk.structure, 1.0), QUIETEST)
    return found, "from the scatter about the Kramers-Kronig fit"


def noise_kind(prediction: Prediction, asked: str | None) -> dict[str, Any]:
    """The kind of noise that the likelihood took, why, its level at the posterior's circuits, and in words.

    log_evidence: ln p(spectrum) under each kind, where they were compared.
    """
    kind, level = prediction.noise_kind, prediction.noise.median if prediction.noise else 0.0
    words = {"modulus": f"of {level:.2%} of |Z| on Z' and on Z''", "proportional": f"of {level:.2%} of Z' and of Z''",
             "phase": f"of {level:.2g} rad of the angle, a tenth of that of |Z|"}[kind]  # fmt: skip
    found = {"kind": kind, "from": "default" if asked is None else "as given", "level": level}
    if not prediction.noise_evidence:
        return found | {"sentence": f"Noise is taken as {kind}, errors {words}."}
    ranked = sorted(prediction.noise_evidence.items(), key=lambda item: -item[1])
    ahead = ranked[0][1] - ranked[1][1]
    sure = "" if ahead >= SURE else ": they can hardly be told apart"
    sentence = f"Noise is likeliest to be {kind}, errors {words}; {ranked[1][0]} is {ahead:.1f} nats behind{sure}."
    return found | {"from": "likeliest of three", "log_evidence": prediction.noise_evidence, "sentence": sentence}


def candidates(spectrum: Spectrum, prediction: Prediction, known: Mapping[str, float], polish: bool) -> list[Candidate]:
    """The likeliest circuits, fitted to the spectrum within the prior or not; a fit moves nothing that is known.

    Circuits of several cells that a fit makes one are one, with the sum of their probabilities; the likeliest is first.
    """
    circuits = np.array([[one.values[name] for name in NAMES] for one in prediction.circuits])
    rs = np.array([one.values["Rs"] for one in prediction.circuits])
    if polish:
        held = {name: value for name, value in known.items() if name in NAMES}
        free_rs = "Rs" in prediction.estimates
        fit = levenberg_marquardt(spectrum.frequencies, spectrum.z, circuits, prediction.topology, held,
                                  None if free_rs else rs, STEPS, HALF_CELL, kind=prediction.noise_kind)  # fmt: skip
        circuits, rs = canonical(fit.parameters) if prediction.merged else fit.parameters, fit.rs
        for name, value in held.items():  # it went through a logarithm
            circuits[:, NAMES.index(name)] = value
    z = impedance(circuits, spectrum.frequencies, prediction.topology, rs)
    off = np.abs(z - spectrum.z) / np.abs(spectrum.z)
    squares = white_squares(spectrum.z, z, prediction.noise_kind)
    found: list[Candidate] = []
    for row, one in enumerate(prediction.circuits):
        same = [other for other in found if np.abs(np.log(other.parameters / circuits[row])).max() < SAME]
        if same:
            same[0].probability += one.probability
            continue
        found.append(Candidate(circuits[row], float(rs[row]), z[row], one.probability, float(off[row].mean()),
                               float(squares[row]), one.predicted_relative))  # fmt: skip
    return sorted(found, key=lambda one: -one.probability)


def quantities(
    best: Candidate, prediction: Prediction, known: Mapping[str, float], says: Verdict
) -> dict[str, dict[str, Any]]:
    """Of each parameter, Rs and invariant: the best circuit's value, the posterior's, whether it is determined.

    known: given, or what follows from nothing but what is given, such as TER of three resistances.
    """
    values = dict(zip(NAMES, best.parameters, strict=True)) | {"Rs": best.rs}
    values |= {name: value for name, value in invariants(best.parameters, prediction.topology).items()
               if name not in values}  # fmt: skip
    spread = prediction.estimates | prediction.invariants
    found: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name in known or name == "TER" and {"Rsh", "Ra", "Rb"} <= set(known):
            found[name] = {"best": value, "known": True}
        elif name in spread:
            quantity = says.quantities.get(name)
            found[name] = {"best": value, "median": spread[name].median, "interval_50": spread[name].half,
                           "interval_90": spread[name].most,
                           "determined": quantity is not None and determined(name, quantity, spread[name])}  # fmt: skip
    return found


def determined(name: str, quantity: Quantity, posterior: Estimate) -> bool:
    """Whether both the linearised verdict and the posterior's spread say so: branches far apart show in the latter."""
    if name == "Rs":
        return quantity.determined
    low, high = posterior.most
    width = WIDTH[NAMES.index(name)] if name in NAMES else WIDTH[0]
    return quantity.determined and bool(np.log(high / low) < 2 * 1.645 * 2 * SHARE * width)


def branches(prediction: Prediction, says: Verdict) -> list[str]:
    """The parameters that the verdict, which looks at one circuit, calls determined, and the posterior does not."""
    return [
        name
        for name, one in says.quantities.items()
        if one.determined and name in prediction.estimates and not determined(name, one, prediction.estimates[name])
    ]


def notes(prediction: Prediction, says: Verdict, known: Mapping[str, float]) -> list[str]:
    """What the user should know beside the numbers, in sentences."""
    found = []
    if names := branches(prediction, says):
        found.append(f"Several separate values of {' and '.join(names)} fit: see the likeliest circuits.")
    if {"Ra", "Rb"} <= set(known) and not {"Ca", "Cb"} & set(known):
        if abs(np.log(known["Ra"] / known["Rb"])) < ALIKE:
            found.append(f"Ra and Rb as given differ by less than {ALIKE:.0%}: which capacitance belongs to which "
                         "hardly shows.")  # fmt: skip
    return found
