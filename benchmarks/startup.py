"""From the command to the first step, warm, over the bare import time of mlx, hydra and trackio; one JSON line.

python benchmarks/startup.py [--repeats 5] [key=value ...]

A run before the first repeat fills the caches (compiled kernels, byte code). Imports and runs take turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST_STEP = """
import sys, time
import launcher
from training.step import TrainStep
call = TrainStep.__call__
def first(self, *args, **kwargs):
    out = call(self, *args, **kwargs)
    import mlx.core as mx
    mx.eval(self.state, out)
    print("first step at", time.time(), flush=True)
    TrainStep.__call__ = call
    return out
TrainStep.__call__ = first
sys.exit(launcher.main(sys.argv[1:]))
"""
IMPORTS = "import mlx.core, mlx.nn, mlx.optimizers, hydra, trackio, time; print('first step at', time.time())"


def seconds(code: str, arguments: list[str]) -> float:
    """From starting a fresh interpreter to the moment that `code` prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command, begin = [sys.executable, "-c", code, *arguments], time.time()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    moments = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("first step at")]
    if done.returncode or not moments:
        sys.exit(f"status {done.returncode}, no first step: {done.stderr.strip()[-500:]}")
    return float(moments[0]) - begin


def main() -> None:
    """Measures and prints medians, and their ratio as the median of the repeats' ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="configuration of the run, as for the launcher")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = [f"output_dir={folder}", "overwrite=true", "epochs=null", "max_steps=1", "run_name=startup"]
        base += ["eval_every=null", "evaluation=none", *given.overrides]
        seconds(FIRST_STEP, base)
        pairs = [(seconds(FIRST_STEP, base), seconds(IMPORTS, [])) for _ in range(given.repeats)]
    run, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    line = {
        "benchmark": "startup", "first_step_s": round(run, 3), "imports_s": round(bare, 3),
        "ratio": round(statistics.median(a / b for a, b in pairs), 3), "repeats": given.repeats,
        "overrides": given.overrides, "python": sys.version.split()[0],
        **{name: version(name) for name in ("mlx", "hydra-core", "trackio")},
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
