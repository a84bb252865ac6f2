"""Spectra a second by the data pipeline's threads, and the most memory that a long stream of them takes; JSON lines.

python benchmarks/eis_data.py [--workers 1,2] [--rows 200000] [--stream 5000000] [key=value ...]

Each line from a process of its own: the training batches of experiment=eis_series (or as the overrides say) are taken
and dropped, --rows of them with each number of threads, then --stream of them with the most threads. processor_s: of
all threads, so that a shared machine shows. base_gb: before the first batch; peak_gb: at the end.
"""

import argparse
import json
import math
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import runtime.blas  # noqa: E402, F401  freed memory stays in the process, as in a run
from benchmarks.turns import resident_gb, run  # noqa: E402


def streamed(rows: int, workers: int, overrides: list[str]) -> dict:
    """Takes at least so many rows of training batches; what it cost."""
    from runtime.instantiate import build
    from scripts.compose import compose

    given = overrides if any(text.startswith("experiment=") for text in overrides) else ["experiment=eis_series"]
    config = compose(["run_name=data", *given, *(text for text in overrides if text not in given)])
    config.dataloaders.workers = workers
    pipeline: Any = build(config.dataloaders)
    batches = math.ceil(rows / pipeline.batch_size)
    base, began, processor = resident_gb(), time.perf_counter(), time.process_time()
    iterator = pipeline.batches("train")
    made = sum(len(batch["x"]) for batch in islice(iterator, batches))
    elapsed, processor = time.perf_counter() - began, time.process_time() - processor
    iterator.close()
    return {
        "benchmark": "eis_data", "workers": workers, "rows": made, "batch_size": pipeline.batch_size,
        "rows_per_s": round(made / elapsed), "seconds": round(elapsed, 2), "processor_s": round(processor, 2),
        "base_gb": round(base, 3), "peak_gb": round(resident_gb(), 3), "overrides": overrides,
    }  # fmt: skip


def main() -> None:
    """Runs every measurement as its own process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--stream", type=int, default=5_000_000, help="0: no long stream")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(streamed(given.rows, given.one, given.overrides)))
        return
    workers = [int(text) for text in given.workers.split(",")]
    for rows, count in [*((given.rows, count) for count in workers), (given.stream, max(workers))]:
        if rows:
            run([sys.executable, __file__, "--one", str(count), "--rows", str(rows), *given.overrides])


if __name__ == "__main__":
    main()
