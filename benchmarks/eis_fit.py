"""Circuit fits of impedance spectra: impedance.py, a batched Levenberg-Marquardt, our network; JSON lines.

python benchmarks/eis_fit.py [--count 1000] [--series CHECKPOINT] [--parallel CHECKPOINT] [--points 60,100]
                             [--noise 0.001,0.01,0.05] [--device cpu] [--impedance-python PATH [--peer-count 20]]

Off-grid circuits, uniform in the logarithm over the prior, modulus noise. lm: from the middle of the grid until it
converges. network: the likeliest circuit of a checkpoint, without a look back at the spectrum. network + 3 lm: three
steps from there; network of 24: it sees that many of the points only, the steps see all. projection: the search over
time constants alone, with what steps its circuits need on the grid (domains/eis_start.py). impedance.py (its own
Python): from the middle, and from the network's circuit, --peer-count spectra.

single_*: one spectrum a call, --singles of them; batch_*: all in one call, the median of nine, methods in turns
(batch_cpu_ms: of all threads together, which a busy machine changes less). over_floor: mean |dZ| / |Z| of the fit
over that of the true circuit on the same spectrum, median and 90% quantile; success: the share of spectra where that
is at most 1.5, close: at most 1.1. Then ratios, of batches the median of each turn's, and after how many spectra the
network's training has paid.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import runtime.blas  # noqa: E402, F401  before mlx

# isort: split
import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.eis_network import likeliest  # noqa: E402
from benchmarks.turns import command, finished, repeated  # noqa: E402
from domains import eis_start  # noqa: E402
from domains.eis import ENDS, TOPOLOGIES, Impedance, default_frequencies, from_places, impedance  # noqa: E402
from domains.eis_fit import levenberg_marquardt, middle  # noqa: E402
from domains.eis_noise import noisy  # noqa: E402
from runtime.device import describe, select  # noqa: E402
from runtime.errors import UsageError  # noqa: E402
from scripts.eis_models import SHIPPED, load  # noqa: E402
from training import checkpoint  # noqa: E402

SEEN = 24  # points that suffice for a start
STARTED = ("network", "network + 3 lm", f"network of {SEEN} + 3 lm")
PROJECTION = "projection"
TURNS = 9
ENOUGH, CLOSE = 1.5, 1.1  # times the residual of the true circuit
Method = Callable[[Impedance], np.ndarray]  # spectra (N, F) -> parameters (N, 5)


class Case:
    """Spectra z (N, F) of circuits truths (N, 5) at `frequencies` (F,) Hz, and the truths' residual, floor (N,)."""

    def __init__(self, topology: str, points: int, noise: float, count: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.topology, self.frequencies = topology, default_frequencies(points)
        self.truths = from_places(rng.uniform(*ENDS, (count, 5)))
        self.z = noisy(impedance(self.truths, self.frequencies, topology), noise, rng)
        self.floor = self.residual(self.truths)
        self.words = {"topology": topology, "points": points, "noise": noise}

    def residual(self, parameters: np.ndarray, rows: int | None = None) -> np.ndarray:
        """The mean over frequencies of |dZ| / |Z| of circuits (n, 5) on the first spectra, (n,)."""
        z = self.z[:rows]
        return (np.abs(impedance(parameters, self.frequencies, self.topology) - z) / np.abs(z)).mean(axis=1)

    def quality(self, parameters: np.ndarray) -> dict[str, float | None]:
        """Success and residual over floor of circuits (n, 5) on the first n spectra; NaN: no fit, in the end None."""
        missing = np.isnan(parameters).any(axis=1)
        over = self.residual(np.nan_to_num(parameters, nan=1.0), len(parameters)) / self.floor[: len(parameters)]
        over = np.where(missing, np.inf, over)
        median, high = (float(np.quantile(over, share, method="lower")) for share in (0.5, 0.9))
        return {"success": round(float((over <= ENOUGH).mean()), 4), "close": round(float((over <= CLOSE).mean()), 4),
                "over_floor": finite(median), "over_floor_p90": finite(high)}  # fmt: skip


def finite(value: float) -> float | None:
    """Rounded, or None for infinity, which JSON does not have."""
    return round(value, 3) if np.isfinite(value) else None


class Top1:
    """The likeliest circuits (N, 5) of a network for spectra (N, F) at `frequencies` (F,) Hz.

    seen: how many of the points it is shown, evenly chosen; all where there are no more.
    """

    def __init__(self, model: Any, frequencies: np.ndarray, seen: int = 10**9):
        self.called = mx.compile(partial(likeliest, model))
        count = len(frequencies)
        self.rows = np.rint(np.linspace(0, count - 1, min(seen, count))).astype(int)
        self.column = np.log10(frequencies[self.rows]).astype(np.float32)

    def __call__(self, z: Impedance) -> np.ndarray:
        """Parameters of each."""
        z = z[:, self.rows]
        x = np.ones((*z.shape, 4), np.float32)
        x[..., 0], x[..., 1], x[..., 2] = self.column, z.real, z.imag
        none = mx.zeros((len(z), 5))
        return from_places(np.array(self.called(mx.array(x), none, none)))


def methods(case: Case, model: Any | None) -> dict[str, Method]:
    """What runs in this process."""
    fit = partial(levenberg_marquardt, case.frequencies, topology=case.topology)
    found: dict[str, Method] = {
        "lm": lambda z: fit(z, middle(len(z))).parameters,
        PROJECTION: lambda z: eis_start.fit(case.frequencies, z, case.topology).parameters,
    }
    if model is not None:
        top1, quick = (Top1(model, case.frequencies, seen) for seen in (len(case.frequencies), SEEN))
        does = (top1, lambda z: fit(z, top1(z), steps=3).parameters, lambda z: fit(z, quick(z), steps=3).parameters)
        found |= dict(zip(STARTED, does, strict=True))
    return found


def measured(own: dict[str, Method], case: Case, singles: int) -> dict[str, dict[str, float | None]]:
    """Of each method: the time of a spectrum alone and in a batch (turn by turn), and how good its fits are."""
    found: dict[str, dict] = {}
    for name, method in own.items():
        method(case.z[:1])
        quality = case.quality(method(case.z))
        rows = itertools.cycle(range(min(singles, len(case.z))))
        alone = repeated(lambda method=method, rows=rows: method(case.z[(i := next(rows)) : i + 1]), 0, singles)
        found[name] = {"count": len(case.z), **timing(alone), **quality}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in own}
    for _ in range(TURNS):
        for name, method in own.items():
            begun = time.perf_counter(), time.process_time()
            method(case.z)
            spent[name].append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    for name, times in spent.items():
        batch, used = ([1e3 * one / len(case.z) for one in each] for each in zip(*times, strict=True))
        found[name] |= {"batch_ms": batch, "batch_cpu_ms": used, "batch_per_s": round(1e3 / statistics.median(batch))}
    return found


def timing(milliseconds: list[float]) -> dict[str, float]:
    """Median and 99% quantile of a spectrum alone, and how many a second that is on average."""
    return {"single_ms": round(statistics.median(milliseconds), 4),
            "single_p99_ms": round(float(np.quantile(milliseconds, 0.99)), 4),
            "single_per_s": round(1e3 / statistics.mean(milliseconds), 1)}  # fmt: skip


def peer(python: str, case: Case, guess: np.ndarray) -> dict[str, float | None]:
    """impedance.py on the first spectra, from guesses (n, 5)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spectra.npz"
        np.savez(file, frequencies=case.frequencies, z=case.z[: len(guess)], guess=guess, topology=case.topology)
        line = finished([python, str(HERE / "eis_fit_impedance.py"), str(file)])
    parameters = [[np.nan] * 5 if row is None else row for row in line["parameters"]]
    return {**timing([1e3 * s for s in line["seconds"]]), **case.quality(np.array(parameters, float))}


RATIOS = (("impedance.py", "single_ms", "batch_ms"), ("impedance.py", "single_ms", "single_ms"),
          ("lm", "batch_ms", "batch_ms"), ("lm", "batch_cpu_ms", "batch_cpu_ms"),
          ("lm", "single_ms", "single_ms"))  # fmt: skip


def compared(lines: dict[str, dict], training_s: float | None) -> dict[str, float | None]:
    """Time over time of a spectrum, and how many spectra, in batches, save the seconds that the training took.

    None: no number of them does.
    """
    found: dict[str, float | None] = {}
    for name in (*STARTED, PROJECTION):
        for other, theirs, ours in RATIOS:
            if not {name, other} <= lines.keys():
                continue
            pairs = np.broadcast(lines[other][theirs], lines[name][ours])
            spent, own = (float(np.median(lines[method][key])) for method, key in ((other, theirs), (name, ours)))
            found[f"{other} {theirs} / {name} {ours}"] = round(statistics.median(a / b for a, b in pairs), 2)
            if ours == "batch_ms" and name in STARTED and training_s is not None:
                saved = (spent - own) / 1e3
                found[f"{name} pays over {other} after"] = round(training_s / saved) if saved > 0 else None
    return found


def opened(path: str | None, topology: str, device: str) -> tuple[Any | None, float | None]:
    """The network of a checkpoint, and the seconds of its training where the checkpoint knows them.

    Raises UsageError for a network of the other topology.
    """
    if path is None:
        return None, None
    predictor = load(path, device).predictor
    if predictor.topology != topology:
        raise UsageError(f"--{topology}={path} is a network of {predictor.topology} circuits.")
    _, meta = checkpoint.load(checkpoint.find(SHIPPED.get(path, Path(path))))
    return predictor.model, meta.get("elapsed")


def numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [float(part) for part in text.split(",")]


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--singles", type=int, default=100, help="spectra that are also measured alone")
    parser.add_argument("--points", type=numbers, default=[60, 100], help="frequencies from 1 Hz to 1 MHz")
    parser.add_argument("--noise", type=numbers, default=[0.001, 0.01, 0.05])
    for topology in TOPOLOGIES:
        parser.add_argument(
            f"--{topology}", metavar="CHECKPOINT", help="a run, a file of eis_models.py, or a shipped name"
        )
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="cpu", help="of the network; fits: CPU")
    parser.add_argument("--impedance-python", metavar="PATH")
    parser.add_argument("--peer-count", type=int, default=20)
    return parser.parse_args(arguments)


def compare(case: Case, model: Any | None, training_s: float | None, given: argparse.Namespace) -> None:
    """Every method on a case, a line each, then their ratios."""
    lines: dict[str, dict] = {}

    def shown(name: str, line: dict) -> None:
        lines[name] = line
        middles = {key: round(statistics.median(value), 5) for key, value in line.items() if isinstance(value, list)}
        print(json.dumps({"method": name, **case.words, **line, **middles}), flush=True)

    own = methods(case, model)
    for name, line in measured(own, case, given.singles).items():
        shown(name, line)
    if given.impedance_python:
        some = case.z[: given.peer_count]
        guesses = {"impedance.py": middle(len(some))}
        if model is not None:
            guesses["impedance.py from the network"] = own["network"](some)
        for name, guess in guesses.items():
            shown(name, {"count": len(guess), **peer(given.impedance_python, case, guess)})
    if ratios := compared(lines, training_s):
        print(json.dumps({"ratios": case.words, **ratios}), flush=True)


def main() -> None:
    """All cases."""
    given = parsed()
    select(given.device)
    print(json.dumps({"count": given.count, **describe()}), flush=True)
    for topology in TOPOLOGIES:
        model, training_s = opened(getattr(given, topology), topology, given.device)
        for points, noise in itertools.product(given.points, given.noise):
            compare(Case(topology, int(points), noise, given.count), model, training_s, given)


if __name__ == "__main__":
    command(main, UsageError)
