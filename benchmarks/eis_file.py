"""From an instrument's file to the JSON of its circuits, in a warm process: milliseconds, whole and by part.

python benchmarks/eis_file.py [--model parallel] [--file PATH] [--known Rsh=10029 ...] [--count 100] [--device auto]

The whole is what scripts/predict_eis.py does with out=...: read, predict, Kramers-Kronig, fit of the likeliest
circuits, verdict, alarm, write. Medians of `count` calls after some that warm up, by the clock and of the processor's
time, which a busy machine changes less; one JSON line.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in benchmarks/ instead

import runtime.blas  # noqa: F401  before mlx

# isort: split
from benchmarks.turns import repeated
from dataloaders.eis_files import read
from domains.eis import NAMES
from domains.eis_identify import verdict
from domains.eis_kk import lin_kk
from evaluation.eis_predictor import EISParameterCompleter
from runtime import device
from scripts import eis_known
from scripts.eis_analysis import Options, analyse, candidates
from scripts.eis_export import write_records
from scripts.eis_models import load

ROOT = Path(__file__).resolve().parents[1]
CELL = ROOT / "examples" / "data" / "eis" / "cells" / "model_cell_07.csv"
WARM = 5


def milliseconds(work: Callable[[], object], count: int) -> dict[str, float]:
    """Median and 90% quantile of `count` calls, and the median of their processor time, all threads together."""
    repeated(work, 0, WARM)
    times, used = [], []
    for _ in range(count):
        begin = time.process_time()
        times += repeated(work, 0, 1)
        used.append(1e3 * (time.process_time() - begin))
    return {"median_ms": round(median(times), 2), "p90_ms": round(quantiles(times, n=10)[-1], 2),
            "cpu_ms": round(median(used), 2)}  # fmt: skip


def measure(completer: EISParameterCompleter, file: Path, known: dict[str, float], count: int) -> dict:
    """The whole and its parts, for the first sweep of a file."""
    spectrum = read(file)[0]
    prediction = completer.predict_missing_parameters(known, spectrum)
    best = candidates(spectrum, prediction, known, True)[0]
    record = analyse(spectrum, known, completer, Options())[0]
    given = tuple(name for name in NAMES if name in known)
    free_rs = "Rs" in prediction.estimates
    level = record["noise"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "r.json"

        def whole() -> None:
            write_records([analyse(read(file)[0], known, completer, Options())[0]], out)

        parts: dict[str, Callable[[], object]] = {
            "whole": whole,
            "read": lambda: read(file),
            "predict": lambda: completer.predict_missing_parameters(known, spectrum),
            "kramers_kronig": lambda: lin_kk(spectrum),
            "fit": lambda: candidates(spectrum, prediction, known, True),
            "verdict": lambda: verdict(best.parameters, spectrum.frequencies, prediction.topology, level, given,
                                       best.rs, free_rs),
            "write": lambda: write_records([record], out),
        }  # fmt: skip
        found = {name: milliseconds(work, count) for name, work in parts.items()}
    return {"points": len(spectrum.z), "effective": prediction.effective, **found}


def main() -> None:
    """Measures and prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="parallel")
    parser.add_argument("--file", type=Path, default=CELL)
    parser.add_argument("--known", nargs="*", default=["Rsh=10029", "Ra=988", "Rb=98.9"])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    _, known = eis_known.split([f"known.{one}" for one in given.known])
    line = measure(load(given.model, given.device), given.file, known, given.count)
    print(json.dumps({"file": given.file.name, "known": known, **line, **device.describe(), "mlx": version("mlx")}))


if __name__ == "__main__":
    main()
