"""A trial of a sweep: a run in a folder and a process of its own; trial.json beside the run says what became of it."""

import runtime.blas  # noqa: F401  before mlx: a trial's process begins here

# isort: split
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from signal import Signals
from typing import Any

from launcher import train
from runtime.errors import UsageError
from runtime.processes import end_with_parent
from scripts.compose import compose, run_name_of
from traces.prune import Prune
from training.estimator import Interrupted
from training.search.search import sentence

Record = dict[str, Any]
Report = Callable[[float, int], bool]
CHECKED = "eval/loss"  # must be finite where no other metric is named


@dataclass(frozen=True)
class Trial:
    """A run of a sweep: its overrides, those that are swept as {key: value}, the metric that it must log, if any."""

    sweep: Path
    number: int
    overrides: tuple[str, ...]
    values: dict[str, Any]
    metric: str | None = None

    @property
    def folder(self) -> Path:
        """Its own."""
        return self.sweep / str(self.number)

    def record(self) -> Record:
        """What is known of it, {} before it began."""
        path = self.folder / "trial.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def write(self, **changes: Any) -> Record:
        """Changes its record, whole or not at all."""
        record = {**self.record(), **changes}
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / ".trial.json.partial"
        temporary.write_text(json.dumps(record, indent=2) + "\n")
        temporary.replace(self.folder / "trial.json")
        return record

    def begin(self) -> Record:
        """Its record from here on, with a value under every name."""
        return self.write(trial=self.number, status="running", values=self.values, overrides=list(self.overrides),
                          metrics={}, steps=None, seconds=None, exit_status=None, error=None)  # fmt: skip

    def ended(self) -> bool:
        """Whether it ended in an earlier sitting, with the same overrides; a pruned one asks again."""
        record = self.record()
        return record.get("status") in ("finished", "crashed") and record["overrides"] == list(self.overrides)


def run_here(trial: Trial, report: Report | None = None) -> Record:
    """Trains a trial in this process, from its last checkpoint if it has one; its record. Interrupted after a signal.

    status is finished, pruned or crashed, the last with `error`, a sentence, and traceback.txt. exit_status: what the
    launcher would end with. report: see traces/prune.py.
    """
    if trial.ended():
        return trial.record()
    begun = (trial.folder / "config.yaml").exists()
    name = f"run_name={run_name_of(list(trial.overrides))}_{trial.number}"  # in the dashboard
    overrides = [*(text for text in trial.overrides if not text.startswith("run_name=")), name]
    traces = [] if report is None else [Prune(report, trial.metric or CHECKED)]
    trial.begin()
    began = time.perf_counter()
    try:
        config = compose([*overrides, *(["resume=true"] if begun else [])], trial.sweep / "configs")
        summary = train(config, trial.folder, overrides, traces)
        pruned = any(trace.pruned for trace in traces)
        outcome = {"metrics": _metrics(trial, summary), "steps": summary.steps, "exit_status": 0,
                   "status": "pruned" if pruned else "finished"}  # fmt: skip
    except Interrupted:
        trial.write(status="stopped")
        raise
    except Exception as error:
        (trial.folder / "traceback.txt").write_text(traceback.format_exc())
        expected = isinstance(error, UsageError | OSError)
        outcome = {"status": "crashed", "error": sentence(error), "exit_status": 2 if expected else 1}
    return trial.write(**outcome, seconds=round(time.perf_counter() - began, 2))


def _metrics(trial: Trial, summary: Any) -> dict[str, int | float]:
    """The last held-out metrics of a run; an error where the one that counts is missing or no finite number."""
    name = trial.metric or CHECKED
    found = {k: v for k, v in summary.latest.items() if k.startswith("eval/") or k == name}
    found = {k: v for k, v in found.items() if isinstance(v, int | float) and not k.endswith("_floor")}
    if trial.metric is not None and name not in found:
        known = ", ".join(found) or "none (is eval_every=null?)"
        raise UsageError(f"metric={name} was not logged; the held-out metrics are {known}.")
    if not math.isfinite(found.get(name, 0.0)):
        raise FloatingPointError(f"{name} is {found[name]} after {summary.steps} steps.")
    return found


class Processes:
    """Runs trials, each in a process of its own: what kills that marks the trial, and the sweep goes on.

    Several threads may run one each. Within `with caught(processes)` the first signal asks the trials to save and
    stop, and `run` raises Interrupted. output: what a trial prints goes to its output.txt.
    """

    def __init__(self, output: bool = False):
        self.output, self.running, self._signal = output, set(), 0

    @property
    def interrupted(self) -> int:
        """The signal that asked this process to stop, or 0."""
        return self._signal

    @interrupted.setter
    def interrupted(self, number: int) -> None:
        self._signal = number
        for process in list(self.running):
            process.terminate()

    def run(self, trial: Trial, report: Report | None = None) -> Record:
        """Like run_here; crashed is also a trial whose process died, exit_status then -n for signal n."""
        if trial.ended():
            return trial.record()
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, trial, report is not None, self.output))
        if self._signal:
            raise Interrupted(self._signal)
        trial.begin()  # here too: the process may die before it comes so far
        process.start()
        theirs.close()
        self.running.add(process)
        try:
            if self._signal:  # between the question and the start
                process.terminate()
            _answer(ours, report)
        except BaseException:
            process.terminate()
            raise
        finally:
            process.join()
            ours.close()
            self.running.discard(process)
        if process.exitcode and self._signal:
            raise Interrupted(self._signal)
        if process.exitcode:
            return trial.write(status="crashed", error=_death(process.exitcode), exit_status=process.exitcode)
        return trial.record()


def _answer(pipe: Any, report: Report | None) -> None:
    """Answers what a trial reports, to its end."""
    while True:
        try:
            value, step = pipe.recv()
        except (EOFError, ConnectionError):
            return
        if report is not None:
            pipe.send(report(value, step))


def _death(code: int) -> str:
    if code < 0:
        return f"its process was ended by {Signals(-code).name}."
    return f"its process ended with exit status {code}."


def _work(pipe: Any, trial: Trial, reports: bool, output: bool) -> None:
    """What a trial's process does."""
    end_with_parent()
    os.setpgrp()  # Ctrl-C reaches the sweep alone, which passes it on once
    if output:
        trial.folder.mkdir(parents=True, exist_ok=True)
        with (trial.folder / "output.txt").open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)

    def report(value: float, step: int) -> bool:
        pipe.send((value, step))
        return pipe.recv()

    try:
        run_here(trial, report if reports else None)
    except Interrupted as stop:
        sys.exit(128 + stop.signal)
