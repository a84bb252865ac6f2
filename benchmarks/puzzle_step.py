"""A training step of the recursive puzzle models beside the PyTorch code of their authors; JSON lines, then ratios.

python benchmarks/puzzle_step.py --model trm_mlp|trm|hrm [--device gpu] [--precision bf16] [--batch 768]
                                 [--reference DIR --torch-python PATH [--compiled]] [--through 192]

A step is whole: forward, backward, optimizer (ours AdamATan2, theirs PyTorch's fused AdamW), SignSGD of the puzzle
embedding and EMA, on one batch again and again; metrics stay on the device. DIR is a checkout of
github.com/SamsungSAILMontreal/TinyRecursiveModels (trm, trm_mlp) or github.com/sapientinc/HRM (hrm). --through: batch
size of two more runs of ours, with and without gradients through all cycles, for their peak memory.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import runtime.blas  # noqa: E402, F401  before mlx

# isort: split
import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.step_mlx import Batches, advance  # noqa: E402
from benchmarks.turns import command, in_turns, resident_gb, run, steps_timed  # noqa: E402
from losses.act import ACT  # noqa: E402
from models.hrm import HRM  # noqa: E402
from models.trm import TRM  # noqa: E402
from optimizers.adam_atan2 import AdamATan2  # noqa: E402
from optimizers.sign_sgd import SignSGD  # noqa: E402
from runtime.device import describe, select  # noqa: E402
from runtime.errors import UsageError  # noqa: E402
from runtime.op import ObjectiveOp  # noqa: E402
from runtime.trees import count_parameters  # noqa: E402
from training.estimator import Estimator  # noqa: E402
from training.network import Network  # noqa: E402
from training.update import UpdateOp  # noqa: E402

VOCABULARY, LENGTH = 11, 81  # Sudoku's
MODELS = ("hrm", "trm", "trm_mlp")


class Through(TRM):
    """TRM with gradients through all cycles, as faulty ports have it."""

    def think(self, y: mx.array, z: mx.array, e: mx.array) -> tuple[mx.array, mx.array]:
        """One supervision step of the states (B, T, D)."""
        for _ in range(self.high):
            y, z = self.cycle(y, z, e)
        return y, z


def model_of(given: argparse.Namespace) -> TRM | HRM:
    """The network of a benchmark, from seed 0."""
    mx.random.seed(0)
    sizes: Any = {"hidden": given.hidden, "heads": given.heads, "ids": 1}
    if given.model == "hrm":
        return HRM(VOCABULARY, LENGTH, **sizes)
    kind = Through if given.all_cycles else TRM
    return kind(VOCABULARY, LENGTH, **sizes, mixer="mlp" if given.model == "trm_mlp" else "attention")


def worker(given: argparse.Namespace) -> dict:
    """Ours in this process, through the estimator, as the launcher trains."""
    model, rng = model_of(given), np.random.default_rng(0)
    objective = ACT(q_continue=given.model == "hrm")
    table = {"optimizer": partial(SignSGD, weight_decay=1.0), "learning_rate": 1e-4}
    update = UpdateOp(model, "loss", partial(AdamATan2, weight_decay=1.0), 1e-4, ema=[0.999], table=table)
    batches = Batches((given.batch, LENGTH))
    batches.batch = {
        "x": rng.integers(1, VOCABULARY, (given.batch, LENGTH), np.int32),
        "label": rng.integers(2, VOCABULARY, (given.batch, LENGTH), np.int32),
        "puzzle": np.zeros(given.batch, np.int32),
    }
    network = Network([ObjectiveOp(model, objective), update])
    estimator = Estimator(batches, network, None, max_steps=0, eval_every=None, precision=given.precision)
    found = steps_timed(partial(advance, estimator), given.seconds)
    gpu = mx.default_device() == mx.Device(mx.gpu)
    return {
        "variant": "ours, all cycles" if given.all_cycles else "ours", "model": given.model, "batch": given.batch,
        "precision": given.precision, **found,
        "puzzles_s": round(1e3 * given.batch / found["median_ms"], 1),
        "peak_gb": round(mx.get_peak_memory() / 1e9 if gpu else resident_gb(), 3),
        "parameters": count_parameters(model, True), **describe(),
    }  # fmt: skip


def torch_options(given: argparse.Namespace) -> dict:
    """The configuration of the reference's model, by its own names."""
    hrm = given.model == "hrm"
    return {
        "batch_size": given.batch, "seq_len": LENGTH, "vocab_size": VOCABULARY, "num_puzzle_identifiers": 1,
        "hidden_size": given.hidden, "num_heads": given.heads, "expansion": 4, "pos_encodings": "rope",
        "H_cycles": 2 if hrm else 3, "L_cycles": 2 if hrm else 6, "H_layers": 4 if hrm else 0,
        "L_layers": 4 if hrm else 2, "puzzle_emb_ndim": given.hidden, "puzzle_emb_len": 16,
        "halt_max_steps": 16, "halt_exploration_prob": 0.1, "no_ACT_continue": True,
        "forward_dtype": {"bf16": "bfloat16", "fp32": "float32"}[given.precision],
    }  # fmt: skip


def ratios(lines: dict[str, list[dict]]) -> list[dict]:
    """Ours over each other variant, in time and peak memory; medians over the turns."""
    middle = {
        name: {key: median(line[key] for line in own) for key in ("median_ms", "peak_gb")}
        for name, own in lines.items()
    }
    counts = {name: {line["parameters"] for line in own} for name, own in lines.items()}
    if len(set.union(*counts.values())) > 1:
        raise UsageError(f"the networks differ in size: {counts}; needed: the same number of parameters.")
    return [
        {"ours over": name, **{key: round(middle["ours"][key] / value, 3) for key, value in theirs.items()}}
        for name, theirs in middle.items() if name != "ours"
    ]  # fmt: skip


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="trm_mlp")
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--batch", type=int, default=768)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15.0, help="measuring time of a process, warm-up not counted")
    parser.add_argument("--turns", type=int, default=1, help="how often every variant is measured")
    parser.add_argument("--reference", type=Path, metavar="DIR")
    parser.add_argument("--torch-python", metavar="PATH", default=sys.executable)
    parser.add_argument("--compiled", action="store_true", help="also torch.compile")
    parser.add_argument("--through", type=int, metavar="BATCH", help="peak memory with gradients through all cycles")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--all-cycles", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def commands(given: argparse.Namespace) -> dict[str, list[str]]:
    """The command of every variant asked for; UsageError for a reference that isn't there."""
    device = str(describe()["device"])
    shared = ["--model", given.model, "--device", device, "--seconds", str(given.seconds), "--batch", str(given.batch)]
    own = ["--precision", given.precision, "--hidden", str(given.hidden), "--heads", str(given.heads), "--worker"]
    found = {"ours": [sys.executable, str(HERE / "puzzle_step.py"), *shared, *own]}
    if given.reference:
        if not (given.reference / "models" / "losses.py").exists():
            raise UsageError(f"--reference must be a checkout of the model's repository, got {given.reference}.")
        theirs = [given.torch_python, str(HERE / "puzzle_step_torch.py"), str(given.reference), *shared]
        found["torch"] = [*theirs, "--options", json.dumps(torch_options(given))]
        if given.compiled:
            found["torch compiled"] = [*found["torch"], "--compile"]
    return found


def main() -> None:
    """Every variant in a process of its own, in turns."""
    given = parsed()
    select(given.device)
    if given.worker:
        return print(json.dumps(worker(given)), flush=True)
    if given.through and given.model == "hrm":
        raise UsageError("--through is for trm and trm_mlp, got --model hrm.")
    ours = commands(given)
    lines = in_turns(ours, given.turns)
    found = ratios(lines)
    if given.through:
        alone = [*ours["ours"], "--batch", str(given.through)]
        found += ratios({"ours": [run(alone)], "ours, all cycles": [run([*alone, "--all-cycles"])]})
    for line in found:
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    command(main, UsageError)
