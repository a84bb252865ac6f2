"""Measurements in processes of their own, one after another: what the benchmarks beside a peer share. Standard library.

`timed`, `steps_timed`, `repeated` and `resident_gb` are for the workers themselves, ours and a peer's.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median


def run(command: list[str]) -> dict:
    """The JSON line a worker ends with, printed too."""
    line = finished(command)
    print(json.dumps(line), flush=True)
    return line


def finished(command: list[str]) -> dict:
    """The JSON line a worker ends with; SystemExit with its message where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def medians(commands: Mapping[str, list[str]], key: str, turns: int) -> dict[str, float]:
    """The median of `key` for each named command, all of them run in turns."""
    return {name: median(line[key] for line in lines) for name, lines in in_turns(commands, turns).items()}


def in_turns(commands: Mapping[str, list[str]], turns: int) -> dict[str, list[dict]]:
    """The lines of each named command, all of them run in turns."""
    found: dict[str, list[dict]] = {name: [] for name in commands}
    for _ in range(turns):
        for name, command in commands.items():
            found[name].append(run(command))
    return found


def timed(work: Callable[[], object], seconds: float, calls: int = 1) -> dict[str, float]:
    """Milliseconds of one of the `calls` that `work` makes: median_ms, p99_ms, and cpu_ms, all threads together."""
    used = time.process_time()
    times = sorted(repeated(work, seconds))
    used = 1e3 * (time.process_time() - used) / len(times)
    found = {"median_ms": median(times), "p99_ms": times[min(len(times) - 1, int(0.99 * len(times)))], "cpu_ms": used}
    return {name: round(value / calls, 4) for name, value in found.items()}


def steps_timed(turn: Callable[[int], float], seconds: float) -> dict[str, float]:
    """first_s, of the first training step, and what `timed` says of the later ones, taken a second's worth at once.

    turn: takes so many steps and returns the seconds of one.
    """
    first = turn(1)
    steps = max(1, round(1.0 / turn(2)))
    return {"first_s": round(first, 2), **timed(lambda: turn(steps), seconds, steps)}


def repeated(work: Callable[[], object], seconds: float, least: int = 3) -> list[float]:
    """Milliseconds of each call of `work`, called for so many seconds and at least so many times."""
    times: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(times) < least:
        begin = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begin))
    return times


def resident_gb() -> float:
    """The most memory this process has held so far in GB (Linux; nan elsewhere).

    Not getrusage's ru_maxrss: that starts at what the parent held when it forked.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 / 1e9


def command(main: Callable[[], None], mistake: type[Exception]) -> None:
    """Runs a benchmark; a user's mistake ends it in its one sentence, exit status 2."""
    try:
        main()
    except mistake as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
