"""The EIS predictor beside its PyTorch twin: training samples/s, peak memory, latency of predictions; JSON lines.

python benchmarks/eis_network.py [--device cpu|gpu] [--precision fp32|bf16] [--train 512,4096] [--predict 1,256]
                                 [--turns 3] [--seconds 5] [--threads 1] [--torch-python PATH [--compiled]]

First parity: the same random weights, on the same spectra, must give the same ln density, predicted residual and
likeliest places (ours computed on the CPU, PyTorch's on --device without TF32), else it stops. Then every measurement
in a process of its own, all variants in turns. Train: the estimator's loop (PyTorch: a plain one), AdamW, each step
from a batch on the host. Predict: host to host, encoder, five choices of a cell and a place in it. peak_gb: the
allocator's on a GPU, else what the process grew by. cpu_ms: of all the process's threads, which a busy machine changes
less (with --threads 1 no peer waits for its threads there). Ratios are ours over theirs, of medians: samples/s above 1
is faster; milliseconds and memory below 1 is less.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import runtime.blas  # noqa: E402, F401  before mlx

# isort: split
import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from benchmarks.step_mlx import Batches, adamw, advance  # noqa: E402
from benchmarks.turns import command, in_turns, repeated, resident_gb, run, steps_timed, timed  # noqa: E402
from dataloaders.eis import Spectra  # noqa: E402
from losses.eis import CircuitLikelihood  # noqa: E402
from models.eis_predictor import EISPredictor  # noqa: E402
from runtime.device import describe, select  # noqa: E402
from runtime.errors import UsageError  # noqa: E402
from runtime.op import NumpyBatch, ObjectiveOp  # noqa: E402
from runtime.trees import count_parameters, flatten  # noqa: E402
from training.estimator import Estimator  # noqa: E402
from training.network import Network  # noqa: E402
from training.update import UpdateOp  # noqa: E402

PARITY = 64  # spectra to compare on
# the options of the default network
CONFIG: Any = OmegaConf.load(HERE.parent / "configs" / "model" / "eis_predictor.yaml")
SIZES: dict[str, Any] = {name: CONFIG[name] for name in CONFIG if name not in ("_target_", "shape")}
TOLERANCES = {"log_density": 2e-3, "log_residual": 2e-4, "likeliest": 2e-4}  # nats, decades, cells; float32


def likeliest(model: EISPredictor, x: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
    """Places (B, 5): each parameter's likeliest cell given those before, the heaviest component's centre in it.

    What is known stays as it is.
    """
    context = model.encode(x, known, known_mask)
    found = mx.zeros_like(known)
    for i in range(5):
        logits, h = model.cells(context, found, i)
        cell = logits.argmax(axis=-1)
        weight, centre, _ = model.inside(h, cell, i)
        best = mx.take_along_axis(centre, weight.argmax(axis=-1, keepdims=True), axis=-1)[:, 0]
        found[:, i] = mx.where(known_mask[:, i] > 0, known[:, i], cell + mx.clip(best, -0.5, 0.5))
    return found


def written(path: Path, rows: int, options: dict[str, Any]) -> None:
    """Random weights, `rows` spectra as an epoch brings them, and what ours says of the first, in one npz."""
    mx.random.seed(0)
    model = EISPredictor(shape=(50, 4), **options)
    spread = flatten(model.parameters())  # initial biases and norms are 0 and 1: those would hide a difference
    model.load_weights([(name, a + 0.05 * mx.random.normal(a.shape)) for name, a in spread.items()])
    batch = Spectra(points=(5, 50), known=(0.4, 0.1, 0.1, 0.3, 0.1), blank=0.1).take(
        np.arange(rows), np.random.default_rng(0)
    )
    given = {name: mx.array(array[:PARITY]) for name, array in batch.items()}
    with mx.stream(mx.cpu):
        context = model.encode(given["x"], given["known"], given["known_mask"])
        ours = {"log_density": mx.stack([*model.log_density(context, given["target"])]),
                "log_residual": model.log_residual(context, given["candidate"]),
                "likeliest": likeliest(model, given["x"], given["known"], given["known_mask"])}  # fmt: skip
        mx.eval(ours)
    parts = {"weights": flatten(model.parameters()), "batch": batch, "ours": ours, "options": options}
    arrays: dict = {f"{part}/{name}": np.array(a) for part, of in parts.items() for name, a in of.items()}
    np.savez(path, **arrays)


def stored(path: Path, rows: int) -> tuple[EISPredictor, NumpyBatch]:
    """The network and `rows` spectra of such a file."""
    with np.load(path) as held:
        parts: dict[str, dict] = {"weights": {}, "batch": {}, "ours": {}, "options": {}}
        for name in held.files:
            part, _, key = name.partition("/")
            parts[part][key] = held[name]
    model = EISPredictor((50, 4), **{name: value.item() for name, value in parts["options"].items()})
    model.load_weights([(name, mx.array(array)) for name, array in parts["weights"].items()])
    mx.eval(model.parameters())
    return model, {name: array[:rows] for name, array in parts["batch"].items()}


def trained(model: EISPredictor, batch: NumpyBatch, precision: str, seconds: float) -> dict:
    """Training steps through the estimator."""
    rows = len(batch["x"])
    batches = Batches((rows, 50, 4))
    batches.batch = batch
    network = Network([ObjectiveOp(model, CircuitLikelihood()), UpdateOp(model, "loss", adamw, 1e-3)])
    estimator = Estimator(batches, network, None, max_steps=0, eval_every=None, precision=precision)

    found = steps_timed(partial(advance, estimator), seconds)
    return {**found, "samples_s": round(1e3 * rows / found["median_ms"])}


def predicted(model: EISPredictor, batch: NumpyBatch, precision: str, seconds: float) -> dict:
    """Predictions by one compiled function."""
    if precision != "fp32":
        model.set_dtype({"bf16": mx.bfloat16}[precision])
    called = mx.compile(partial(likeliest, model))

    def once() -> np.ndarray:
        return np.array(called(*(mx.array(batch[name]) for name in ("x", "known", "known_mask"))))

    begin = time.perf_counter()
    once()
    first = time.perf_counter() - begin
    repeated(once, 0)
    return {"first_s": round(first, 2), **timed(once, seconds)}


def worker(given: argparse.Namespace) -> dict:
    """One measurement of ours in this process."""
    model, batch = stored(given.file, given.rows)
    before = resident_gb()
    found = (trained if given.task == "train" else predicted)(model, batch, given.precision, given.seconds)
    gpu = mx.default_device() == mx.Device(mx.gpu)
    found["peak_gb"] = round(mx.get_peak_memory() / 1e9 if gpu else resident_gb() - before, 4)
    return {"variant": "ours", "task": given.task, "batch": given.rows, "precision": given.precision, **found,
            "parameters": count_parameters(model), **describe()}  # fmt: skip


def different(line: dict) -> str | None:
    """What of a parity line is beyond its tolerance, in words."""
    beyond = [f"{name} {line[name]:.2g} > {bound:g}" for name, bound in TOLERANCES.items() if not line[name] <= bound]
    return f"the networks differ: {', '.join(beyond)}" if beyond else None


def ratios(task: str, batch: int, lines: dict[str, list[dict]]) -> list[dict]:
    """Ours over each peer: medians over the turns of speed or time, and of memory."""
    keys = ("samples_s" if task == "train" else "median_ms", "p99_ms", "cpu_ms", "peak_gb")
    middle = {name: {key: statistics.median(line[key] for line in own) for key in keys} for name, own in lines.items()}
    return [{"ours over": name, "task": task, "batch": batch,
             **{key: round(middle["ours"][key] / theirs[key], 3) if theirs[key] else None for key in keys}}
            for name, theirs in middle.items() if name != "ours"]  # fmt: skip


def sizes(text: str) -> list[int]:
    """Batch sizes from "512,4096"; none from ""."""
    found = [int(part) for part in text.split(",") if part.strip()]
    if any(size < 1 for size in found):
        raise argparse.ArgumentTypeError(f"batch sizes must be at least 1, got {text}")
    return found


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--train", type=sizes, default=[512, 4096], help="batch sizes, with commas")
    parser.add_argument("--predict", type=sizes, default=[1, 256], help="batch sizes, with commas")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="measuring time of a process, warm-up not counted")
    parser.add_argument("--threads", type=int, help="of matrix products on a CPU; left out: as each library chooses")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--torch-python", metavar="PATH")
    parser.add_argument("--compiled", action="store_true", help="also torch.compile")
    for name, kind in (("--file", Path), ("--task", str), ("--rows", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)  # of a worker
    return parser.parse_args(arguments)


def main() -> None:
    """Parity, then every task and batch size, ratios after each."""
    given = parsed()
    select(given.device)
    if given.file:
        return print(json.dumps(worker(given)), flush=True)
    device = describe()["device"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.npz"
        written(file, max([PARITY, *given.train, *given.predict]), SIZES | {"hidden": given.hidden})
        shared = ["--device", str(device), "--precision", given.precision, "--seconds", str(given.seconds)]
        ours = [sys.executable, str(HERE / "eis_network.py"), "--file", str(file), *shared]
        theirs = [given.torch_python, str(HERE / "eis_network_torch.py"), str(file), *shared]
        if given.threads:
            os.environ["OPENBLAS_NUM_THREADS"] = str(given.threads)
            theirs += ["--threads", str(given.threads)]
        if given.torch_python and (words := different(run([*theirs, "--task", "parity", "--batch", str(PARITY)]))):
            raise SystemExit(words)
        for task, batch in [*(("train", size) for size in given.train), *(("predict", size) for size in given.predict)]:
            commands = {"ours": [*ours, "--task", task, "--rows", str(batch)]}
            if given.torch_python:
                commands["torch"] = [*theirs, "--task", task, "--batch", str(batch)]
            if given.torch_python and given.compiled:
                commands["torch compiled"] = [*commands["torch"], "--compile"]
            for line in ratios(task, batch, in_turns(commands, given.turns)):
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    command(main, UsageError)
