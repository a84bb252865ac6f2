"""Training by several processes, each on a device of its own: speed against one, memory, and whether losses are equal.

python benchmarks/devices.py --processes 1,2 --model unet36 --precision bf16 --seconds 20 --losses 50

The batch of each process is fixed (weak scaling), so that "ratio" is how many times the samples a second of the first
world. --losses N: the first N losses of one process at the batch of all against those of all, on the same rows, noise
and times; beside it how far one process gets from itself with the rows in reverse, which is what the order of sums
alone does, and in fp32, which is what the precision does. One JSON line a piece, as soon as it is done, comparisons at
the end; the first world warms the kernel cache for the next.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import runtime.blas  # noqa: E402, F401  before mlx

# isort: split
import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.step_mlx import UNET36, Batches, adamw, advance  # noqa: E402
from benchmarks.turns import command, resident_gb  # noqa: E402
from losses.flow_matching import FlowMatching  # noqa: E402
from models.dit import DiT  # noqa: E402
from models.mlp import MLP  # noqa: E402
from models.unet import UNet  # noqa: E402
from runtime.device import describe, select  # noqa: E402
from runtime.errors import UsageError  # noqa: E402
from runtime.op import ObjectiveOp  # noqa: E402
from runtime.seed import step_key  # noqa: E402
from runtime.trees import count_parameters  # noqa: E402
from runtime.upload import to_device  # noqa: E402
from runtime.world import STRATEGIES, World, joined  # noqa: E402
from scripts.processes import together  # noqa: E402
from training.estimator import Estimator  # noqa: E402
from training.network import Network  # noqa: E402
from training.sharding import shard  # noqa: E402
from training.update import UpdateOp  # noqa: E402

MODELS = {  # the batch of a process first
    "mlp": ((1024, 2), lambda shape: MLP(shape, hidden=256, depth=3)),
    "unet36": ((128, 32, 32, 3), lambda shape: UNet(shape, **UNET36)),
    "dit_b": ((64, 32, 32, 4), DiT),
    "dit_xl": ((32, 32, 32, 4), lambda shape: DiT(shape, hidden=1152, depth=28, heads=16)),
}  # fmt: skip
KEPT = 4  # batches made once and given in turn


class Rows(Batches):
    """A pipeline of which every process gets its own rows: those of a batch of all, every size-th from `rank` on."""

    def __init__(self, shape: tuple[int, ...], world: World, backwards: bool = False):
        rng = np.random.default_rng(0)
        whole = (shape[0] * world.size, *shape[1:])
        drawn = [{"x": np.tanh(rng.standard_normal((whole[0], *[1] * (len(whole) - 1))) + rng.standard_normal(whole)),
                  "x0": rng.standard_normal(whole)} for _ in range(KEPT)]  # fmt: skip
        own = slice(None, None, -1) if backwards else slice(world.rank, None, world.size)
        self.kept = [{name: array[own].astype(np.float32) for name, array in batch.items()} for batch in drawn]

    def batches(self, mode: str, start: int) -> Iterator[dict[str, np.ndarray]]:
        """An endless iterator."""
        while True:
            yield self.kept[start % KEPT]
            start += 1


def spread(world: World, backwards: bool, count: int, key: mx.array) -> mx.array:
    """The times t (B,) of this process's rows, evenly spread over the rows of all, so that nothing is random."""
    times = (mx.arange(count) * world.size + world.rank + 0.5) / (count * world.size)
    return times[::-1] if backwards else times


def estimator(
    name: str, batch: int, precision: str, world: World, strategy: str, fixed: bool, backwards: bool = False
) -> Estimator:
    """A model from seed 0 on the loop that the launcher runs, without traces. fixed: times are not random."""
    shape, make = MODELS[name]
    mx.random.seed(0)
    model = make(shape[1:])
    if strategy == "fsdp":
        shard(model, world)
    objective = FlowMatching(times=partial(spread, world, backwards) if fixed else None)
    network = Network([ObjectiveOp(model, objective), UpdateOp(model, "loss", adamw, 1e-4, clip=1.0)])
    rows = Rows((batch, *shape[1:]), world, backwards)
    return Estimator(rows, network, epochs=None, max_steps=0, eval_every=None, precision=precision, world=world)


def advanced(made: Estimator, steps: int) -> float:
    """Takes so many more steps and waits for them; seconds of one."""
    made.world.wait()
    return advance(made, steps)


def speed(given: argparse.Namespace, world: World) -> dict[str, Any]:
    """Steps and samples a second of this world, peak memory of each process in GB, seconds to the first step."""
    mx.reset_peak_memory()
    made = estimator(given.model, given.batch, given.precision, world, given.strategy, fixed=False)
    first = advanced(made, 1)
    advanced(made, 2)
    steps = world.told(max(1, round(min(1.0, given.seconds) / advanced(made, 2))))  # a turn takes a second
    turns, begun = [], time.perf_counter()
    while world.told(time.perf_counter() - begun < given.seconds or len(turns) < 3):
        turns.append(advanced(made, steps))
    peaks = world.gathered(mx.array([mx.get_peak_memory() / 1e9, resident_gb()])[None]).tolist()
    each = 1 / median(turns)
    return {
        "steps_per_second": round(each, 3), "samples_per_second": round(each * given.batch * world.size, 1),
        "median_ms": round(1e3 / each, 3), "best_ms": round(1e3 * min(turns), 3), "turns": len(turns),
        "first_step_s": round(first, 1), "peak_gb": [round(row[0], 3) for row in peaks],  # type: ignore[index]
        "resident_gb": [round(row[1], 3) for row in peaks],  # type: ignore[index]
        "parameters": count_parameters(made.network.models["model"]),
    }  # fmt: skip


def losses(given: argparse.Namespace, world: World, batch: int, precision: str, backwards: bool = False) -> list[float]:
    """The losses of the first steps, the same rows, noise and times whatever the world."""
    made = estimator(given.model, batch, precision, world, given.strategy, True, backwards)
    step, batches = made.train_step, made.pipeline.batches("train", 0)
    return [np.asarray(step(to_device(next(batches)), step_key(0, i, 0, world.rank))["loss"]).item()
            for i in range(given.losses)]  # fmt: skip


def worker(given: argparse.Namespace) -> None:
    """What one process does; rank 0 writes the lines to the file --worker."""
    select(given.device)
    world = joined(1)
    with Path(given.worker).open("a") as lines:
        line: dict[str, Any] = {"processes": world.size, "backend": world.backend, "strategy": given.strategy}
        line |= {"model": given.model, "batch": given.batch, "precision": given.precision}
        line |= speed(given, world) | {"name": describe()["name"], "mlx": describe()["mlx"]}
        if world.rank == 0:
            print(json.dumps(line), file=lines, flush=True)
            print(json.dumps(line), flush=True)
        if given.losses:
            batch = given.batch * (given.most if world.size == 1 else 1)
            own = {"losses": losses(given, world, batch, given.precision)}
            if world.size == 1:
                own["reordered"] = losses(given, world, batch, given.precision, backwards=True)
                own["single"] = own["losses"] if given.precision == "fp32" else losses(given, world, batch, "fp32")
            if world.rank == 0:
                print(json.dumps(own), file=lines, flush=True)


def pieces(given: argparse.Namespace) -> None:
    """Runs every world in processes of its own, in turns where there are rounds, and compares them."""
    found: dict[tuple[int, str], list[dict]] = {}
    worlds = [(size, strategy) for strategy in given.strategy.split(",") for size in given.processes]
    worlds = dict.fromkeys((size, s if size > 1 else "data") for size, s in worlds)
    for turn in range(given.rounds):
        for size, strategy in worlds:
            found.setdefault((size, strategy), []).append(measured(given, size, strategy, 0 if turn else given.losses))
    for last in list(worlds)[1:]:
        compare(found, last)


def measured(given: argparse.Namespace, size: int, strategy: str, losses: int) -> dict[str, Any]:
    """What the processes of one world say."""
    with tempfile.TemporaryDirectory(prefix="devices_") as folder:
        file = Path(folder) / "lines.jsonl"
        options = {"model": given.model, "batch": given.batch, "precision": given.precision, "losses": losses,
                   "seconds": given.seconds, "device": given.device, "strategy": strategy, "worker": file,
                   "most": max(given.processes)}  # fmt: skip
        run = [sys.executable, str(Path(__file__).resolve())]
        run += [text for name, value in options.items() for text in (f"--{name}", str(value))]
        status = subprocess.call(run) if size == 1 else together(run, size, "auto", given.device)
        if status:
            raise UsageError(f"{size} processes with strategy {strategy} ended with status {status}.")
        return {k: v for line in file.read_text().splitlines() for k, v in json.loads(line).items()}


def compare(found: dict[tuple[int, str], list[dict]], last: tuple[int, str]) -> None:
    """Prints how a world relates to the first: the ratio of their median speeds, and those of the rounds."""
    (first, _), bases = next(iter(found.items()))
    base, new = bases[0], found[last][0]
    speeds = [[run["samples_per_second"] for run in runs] for runs in (bases, found[last])]
    line = {"model": new["model"], "batch": new["batch"], "precision": new["precision"], "strategy": last[1],
            "processes": [first, last[0]], "ratio": round(median(speeds[1]) / median(speeds[0]), 3),
            "ratios": [round(b / a, 3) for a, b in zip(*speeds, strict=True)]}  # fmt: skip
    if last[1] == "fsdp" and (last[0], "data") in found:
        line["peak_gb_of_data"] = found[last[0], "data"][0]["peak_gb"]
        line["peak_gb"] = new["peak_gb"]
    if first == 1 and new.get("losses"):
        one, many = np.array(base["losses"]), np.array(new["losses"])
        line["losses"] = [round(v, 6) for v in (one[0], one[-1], many[0], many[-1])]
        found_by = {"largest_relative_difference": many, "of_reordered_rows": np.array(base["reordered"]),
                    "of_fp32": np.array(base["single"])}  # fmt: skip
        line |= {name: float(f"{np.abs(other / one - 1).max():.3g}") for name, other in found_by.items()}
    print(json.dumps(line), flush=True)


def main() -> None:
    """Runs the pieces, or one of them in a process that they started."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", default="1,2", help="worlds, in their order")
    parser.add_argument("--model", choices=sorted(MODELS), default="mlp")
    parser.add_argument("--batch", type=int, help="of each process")
    parser.add_argument("--strategy", default="data", help="data, fsdp or data,fsdp")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=1, help="launches of every world, in turns: they differ by 10%%")
    parser.add_argument("--losses", type=int, default=0, help="steps whose losses are compared")
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--most", type=int, default=1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.batch = given.batch or MODELS[given.model][0][0]
    if unknown := set(given.strategy.split(",")) - set(STRATEGIES):
        raise UsageError(f"--strategy must be of {', '.join(STRATEGIES)}, got {unknown.pop()}.")
    if given.worker:
        return worker(given)
    try:
        given.processes = [int(text) for text in given.processes.split(",")]
    except ValueError as error:
        raise UsageError(f"--processes must be numbers like 1,2, got {given.processes}.") from error
    os.environ["NCCL_NVLS_ENABLE"] = "0"  # multicast over NVLink hangs where a machine is shared
    pieces(given)


if __name__ == "__main__":
    command(main, UsageError)
