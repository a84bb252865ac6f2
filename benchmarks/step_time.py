"""Milliseconds per train step, one JSON line a variant, then their ratios.

python benchmarks/step_time.py [--device cpu] [--model mlp|unet|all|unet36|dit_b] [--seconds 30] [--as-installed]
                               [--loss fm|mf25|mf100|all] [--precision bf16]
                               [--peer torch [--compiled] --torch-python PATH] [--limit 600]

The loss and precision are of ours and torch; bare is flow matching in float32, left out where that would mislead.

ours: the real loop. bare: the shortest mx.compile step (both in one process, in turns). as installed: MLX without the
fast BLAS of runtime/blas.py (Linux CPU). torch: PyTorch, by the Python at --torch-python, eager (--compiled: and
torch.compile).
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def worker(python: str, script: str, options: list[str], limit: float | None = None, **environment: str) -> list[dict]:
    """The JSON lines of a worker; none, and a sentence, when it fails or is not done after `limit` seconds."""
    command = [python, str(HERE / script), *options]
    try:
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        print(f"skipped: {script} {' '.join(options)} was not done after {limit:g} s", file=sys.stderr)
        return []
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"skipped: {script} {' '.join(options)} ended with status {done.returncode}: {last}", file=sys.stderr)
        return []
    return [json.loads(text) for text in done.stdout.splitlines()]


def measure(model: str, loss: str, given: argparse.Namespace) -> dict[str, dict]:
    """Every variant asked for, each printed when it is done."""
    options = ["--model", model, "--device", given.device, "--seconds", str(given.seconds)]
    options += ["--loss", loss, "--precision", given.precision]
    comparable = loss == "fm" and given.precision == "fp32"
    ours = [*options, "--variants", "ours,bare" if comparable else "ours"]
    found = worker(sys.executable, "step_mlx.py", ours, given.limit)
    if given.as_installed:
        alone = [*options, "--variants", "ours"]
        found += [
            {**line, "variant": "as installed"}
            for line in worker(sys.executable, "step_mlx.py", alone, given.limit, MLX_LAB_BLAS="off")
        ]
    if given.peer:
        found += worker(given.torch_python, "step_torch.py", options, given.limit)
        if given.compiled:
            found += worker(given.torch_python, "step_torch.py", [*options, "--compile"], given.limit)
    for line in found:
        print(json.dumps({name: value for name, value in line.items() if name != "turns_ms"}), flush=True)
    return {line["variant"]: line for line in found}


def ratios(model: str, lines: dict[str, dict], loss: str = "fm") -> dict:
    """What matters: ours over bare as the median of the turns' ratios, the others as ratios of medians."""
    found: dict = {"ratios": model, "loss": loss}
    if {"ours", "bare"} <= lines.keys():
        pairs = zip(lines["ours"]["turns_ms"], lines["bare"]["turns_ms"], strict=True)
        found["ours / bare"] = round(statistics.median(a / b for a, b in pairs), 3)
    for top, bottom in (
        ("ours", "torch"), ("ours", "torch compiled"), ("bare", "torch"), ("as installed", "ours")
    ):  # fmt: skip
        if {top, bottom} <= lines.keys():
            found[f"{top} / {bottom}"] = round(lines[top]["median_ms"] / lines[bottom]["median_ms"], 3)
    counts = {line["parameters"] for line in lines.values()}
    if len(counts) > 1:
        found["warning"] = f"the networks differ in size: {sorted(counts)}"
    return found


def main() -> int:
    """Runs the variants one after another; 1 when ours could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--model", choices=["mlp", "unet", "unet36", "dit_b", "all"], default="mlp")
    parser.add_argument("--loss", choices=["fm", "mf25", "mf100", "all"], default="fm")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--seconds", type=float, default=20.0, help="measuring time of a worker, warm-up not counted")
    parser.add_argument("--as-installed", action="store_true", help="also MLX without the fast BLAS")
    parser.add_argument("--peer", choices=["torch"])
    parser.add_argument("--compiled", action="store_true", help="also torch.compile")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="of a variant, compilation included")
    parser.add_argument("--torch-python", default=sys.executable, metavar="PATH")
    given = parser.parse_args()
    status = 0
    models = ["mlp", "unet"] if given.model == "all" else [given.model]
    losses = ["fm", "mf25", "mf100"] if given.loss == "all" else [given.loss]
    for model, loss in itertools.product(models, losses):
        lines = measure(model, loss, given)
        status = status if "ours" in lines else 1
        print(json.dumps(ratios(model, lines, loss)), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
