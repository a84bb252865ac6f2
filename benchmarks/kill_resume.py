"""Kills a run with SIGKILL at random moments and resumes it; the end must equal an uninterrupted run's, bit for bit.

python benchmarks/kill_resume.py --kills 20 [--steps 2000] [--seed 0] [OVERRIDE ...]

OVERRIDE: of the experiment, in place of a small network for points.
Compares final checkpoints (every array), metrics.jsonl and trackio's rows (all but wall-clock values). Exit status 1 if
anything differs. Prints one JSON line.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import runtime.blas  # noqa: F401, E402

# isort: split
import mlx.core as mx  # noqa: E402

from training import checkpoint  # noqa: E402
from training.tracking import repeatable  # noqa: E402

POINTS = ("model.hidden=64", "batch_size=512")


def command(name: str, folder: Path, steps: int, resume: bool, overrides: Sequence[str] = POINTS) -> list[str]:
    """The launcher's command line: short epochs, dropout-free but with EMA, evaluation and mid-epoch checkpoints."""
    return [
        sys.executable, str(ROOT / "launcher.py"), f"run_name={name}", f"output_dir={folder}", f"max_steps={steps}",
        "epochs=null", "evaluation=none", "traces.evaluation.pictures=null", *overrides,
        "eval_every=150s", "save_every=40s", "trackio.log_every=7", "trackio.project=kill-resume", "device=cpu",
        *(["resume=true"] if resume else []),
    ]  # fmt: skip


def rows(path: Path) -> list[dict]:
    """The rows of metrics.jsonl without wall-clock values."""
    return [repeatable(json.loads(line)) for line in path.read_text().splitlines()]


def reached(run: Path) -> int:
    """The last step that metrics.jsonl of a run in progress holds; 0 before the first."""
    record = run / "metrics.jsonl"
    lines = record.read_text().splitlines() if record.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def trackio_rows(folder: Path, run_id: str) -> list[dict]:
    """The rows that trackio's database holds for a run."""
    with contextlib.closing(sqlite3.connect(folder / "trackio" / "kill-resume.db")) as database:
        found = database.execute("SELECT step, metrics FROM metrics WHERE run_id = ? ORDER BY step, id", (run_id,))
        return [repeatable({"step": step, **json.loads(metrics)}) for step, metrics in found]


def contents(array: mx.array) -> bytes:
    """The bytes of an array."""
    return memoryview(array.reshape(-1)).tobytes()  # pyright: ignore[reportArgumentType]  # stub lacks __buffer__


def compare(folder: Path) -> dict[str, bool]:
    """What is equal between the run that was killed and the one that was not."""
    ends = {name: checkpoint.load(checkpoint.find(folder / name)) for name in ("whole", "killed")}
    arrays = {name: end[0] for name, end in ends.items()}
    (whole, killed) = arrays["whole"], arrays["killed"]
    same = whole.keys() == killed.keys() and all(contents(whole[k]) == contents(killed[k]) for k in whole)
    records = {name: rows(folder / name / "metrics.jsonl") for name in ends}
    tracked = {name: trackio_rows(folder, end[1]["tracker"]["run_id"]) for name, end in ends.items()}
    return {
        "weights_equal": same,
        "record_equal": records["whole"] == records["killed"],
        "trackio_equal": tracked["whole"] == tracked["killed"] and len(tracked["whole"]) == len(records["whole"]),
    }


def main() -> int:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", default=POINTS)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill_resume_"))
    launched = partial(command, folder=folder, steps=options.steps, overrides=options.overrides)
    environment = {**os.environ, "TRACKIO_DIR": str(folder / "trackio")}
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    began = time.perf_counter()
    subprocess.run(launched("whole", resume=False), check=True, **quiet)
    whole_seconds = time.perf_counter() - began

    draw = random.Random(options.seed)
    # most kills wait for a step drawn from the whole run and then a moment more; every fourth falls into a start-up
    targets = sorted(draw.randrange(options.steps * 9 // 10) for _ in range(options.kills))
    kills, moments = 0, []
    for number, target in enumerate(targets):
        child = subprocess.Popen(launched("killed", resume=(folder / "killed").exists()), **quiet)
        if number % 4 == 3:
            time.sleep(draw.uniform(0.2, 1.2))
        else:
            while child.poll() is None and reached(folder / "killed") < target:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.2))
        moments.append(reached(folder / "killed"))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
        if child.returncode not in (0, -signal.SIGKILL):
            print(child.communicate()[1][-2000:], file=sys.stderr)
            return 1
    subprocess.run(launched("killed", resume=True), check=True, **quiet)
    result = {"kills": kills, "killed_after_row": moments, "steps": options.steps, **compare(folder)}
    print(json.dumps({"benchmark": "kill_resume", **result, "whole_run_seconds": round(whole_seconds, 1)}))
    equal = all(value for key, value in result.items() if key.endswith("_equal"))
    if equal:
        shutil.rmtree(folder)
    else:
        print(f"kept for inspection: {folder}", file=sys.stderr)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
