"""Measurements in processes of their own, one after another: what the benchmarks beside a peer share."""

import json
import subprocess
from collections.abc import Mapping
from statistics import median


def run(command: list[str]) -> dict:
    """The JSON line a worker ends with, printed too; SystemExit with its message where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
    line = json.loads(done.stdout.strip().splitlines()[-1])
    print(json.dumps(line), flush=True)
    return line


def medians(commands: Mapping[str, list[str]], key: str, turns: int) -> dict[str, float]:
    """The median of `key` for each named command, all of them run in turns."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(turns):
        for name, command in commands.items():
            found[name].append(run(command)[key])
    return {name: median(values) for name, values in found.items()}
