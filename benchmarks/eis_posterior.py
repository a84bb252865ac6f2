"""The posterior of one spectrum after the other: effective size before and after refinement, coverage, milliseconds.

python benchmarks/eis_posterior.py [--model parallel] [--count 100] [--points 50] [--noise 0.001 0.01] [--known 0 1 3]
    [--kind modulus proportional phase] [--assumed likeliest]

Circuits from the continuous prior, with Rs where the predictor knows it; `known` of their parameters, at random, are
told. kind: of the noise that they have, assumed: of the likelihood (left out: the same), "likeliest" chooses it for
each spectrum, kind_right of them rightly. One JSON line for each kind, noise level and number: quantiles of the
effective sizes (the network's as a share of its draws), the share below 100, how often the central 50% and 90% hold a
parameter, how often the likeliest cell is right and how often it says so, milliseconds.
"""

import argparse
import json
import sys
import time
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in benchmarks/ instead

import runtime.blas  # noqa: F401  before mlx

# isort: split
import numpy as np

from domains.eis import ENDS, NAMES, RS_SPAN, canonical, default_frequencies, from_places, impedance, to_places
from domains.eis_noise import KINDS, noisy
from domains.eis_spectrum import Spectrum
from evaluation.eis_prediction import ordered
from evaluation.eis_predictor import FEW, LIKELIEST, ProbabilisticEISPredictor
from runtime import device
from scripts.eis_models import load


def measure(
    predictor: ProbabilisticEISPredictor,
    level: float,
    told: int,
    count: int,
    points: int,
    kind: str = "modulus",
    assumed: str = "modulus",
) -> dict:
    """What `count` spectra with noise of a kind and `level` and with `told` known parameters give."""
    rng, frequencies = np.random.default_rng(0), default_frequencies(points)
    own, effective, spent, half, most, hit, said, right = ([] for _ in range(8))
    for seed in range(count + 1):
        circuit = from_places(rng.uniform(*ENDS, 5))
        rs = predictor.rs[1] * RS_SPAN ** -rng.random() if predictor.rs[1] else 0.0
        z = noisy(impedance(circuit, frequencies, predictor.topology, rs), level, rng, kind)
        spectrum = Spectrum(frequencies, z)
        known = {NAMES[i]: float(circuit[i]) for i in rng.permutation(5)[:told]}
        begin = time.perf_counter()
        found = predictor.predict([spectrum], known, seed=seed, kind=assumed)[0]
        if seed == 0:  # warms up
            continue
        spent.append(1e3 * (time.perf_counter() - begin))
        own.append((found.network_effective or 0) / found.drawn)
        effective.append(found.effective or 0)
        right.append(found.noise_kind == kind)
        truth = canonical(circuit) if found.merged else circuit
        for i, name in enumerate(NAMES):
            if name not in known:
                one = found.estimates[name]
                half.append(one.half[0] <= truth[i] <= one.half[1])
                most.append(one.most[0] <= truth[i] <= one.most[1])
        best = np.array([[found.circuits[0].values[name] for name in NAMES], circuit])
        cells = ordered(to_places(best), found.merged)[1]
        hit.append((cells[0] == cells[1]).all())
        said.append(found.circuits[0].probability)
    return {
        "topology": predictor.topology, "kind": kind, "assumed": assumed, "kind_right": float(np.mean(right)),
        "noise": level, "known": told, "count": count,
        "network_share": np.quantile(own, [0.1, 0.5, 0.9]).round(3).tolist(),
        "effective": np.quantile(effective, [0, 0.1, 0.5]).round().tolist(),
        "below_100": float(np.mean(np.array(effective) < FEW)), "coverage_50": round(float(np.mean(half)), 3),
        "coverage_90": round(float(np.mean(most)), 3), "top1": float(np.mean(hit)), "said": float(np.mean(said)),
        "ms": np.quantile(spent, [0.1, 0.5, 0.9]).round(1).tolist(),
    }  # fmt: skip


def main() -> None:
    """Prints the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="parallel", help="a run, a file of eis_models.py, or a shipped name")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.001, 0.01, 0.05])
    parser.add_argument("--known", type=int, nargs="+", default=[0, 1, 3])
    parser.add_argument("--kind", nargs="+", default=["modulus"], choices=KINDS)
    parser.add_argument("--assumed", choices=(*KINDS, LIKELIEST))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    predictor = load(given.model, given.device).predictor
    for kind, level, told in product(given.kind, given.noise, given.known):
        line = measure(predictor, level, told, given.count, given.points, kind, given.assumed or kind)
        print(json.dumps(line | device.describe()), flush=True)


if __name__ == "__main__":
    main()
