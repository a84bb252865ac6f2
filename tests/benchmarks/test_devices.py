"""The benchmark of several processes, two of them over a ring."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--batch", "8", "--seconds", "0.1", "--device", "cpu", "--model", "mlp"]


def ran(*options: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "benchmarks/devices.py", *SMALL, *options], cwd=ROOT, capture_output=True,
                          text=True)  # fmt: skip


def test_one_process_and_two_are_compared():
    done = ran("--losses", "3", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    one, two, again, twice, ratio = [json.loads(line) for line in done.stdout.splitlines()]
    assert (one["processes"], two["processes"], two["backend"], len(two["peak_gb"])) == (1, 2, "ring", 2)
    assert (again["processes"], twice["processes"]) == (1, 2)
    a, b, c, d = (line["samples_per_second"] for line in (one, two, again, twice))
    assert abs(ratio["ratio"] - (b + d) / (a + c)) < 2e-3  # medians of two
    assert abs(ratio["ratios"][0] - b / a) < 2e-3 and abs(ratio["ratios"][1] - d / c) < 2e-3
    assert ratio["largest_relative_difference"] < 1e-5 and ratio["of_reordered_rows"] < 1e-5
    assert ratio["of_fp32"] == 0
    assert ratio["losses"][0] > 0.1


def test_what_can_not_run_ends_in_a_sentence():
    done = ran("--processes", "2", "--strategy", "fsdp")
    assert done.returncode == 2 and "fsdp needs the backend nccl or jaccl, got ring" in done.stderr
    done = ran("--strategy", "all")
    assert done.returncode == 2 and "--strategy must be of data, fsdp, got all" in done.stderr
