"""What a fit or a test leaves behind: every logged row, to read, to save and to compare."""

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import UsageError
from runtime.op import MODES


class History(list):
    """Rows {"step": 4, "eval/accuracy": 0.9, ...} in order; by a mode's name {key: {step: value}}, as FastEstimator's.

    history["eval"]["accuracy"] is {4: 0.9, ...}. What is logged without a mode ("perf/steps_per_second") is train's.
    """

    def __getitem__(self, place: Any) -> Any:
        """Rows by number, or what a mode has logged, {} for nothing."""
        return self.by_mode().get(place, {}) if isinstance(place, str) else super().__getitem__(place)

    def by_mode(self) -> dict[str, dict[str, dict[int, Any]]]:
        """{mode: {key: {step: value}}} of all that was logged."""
        found: dict[str, dict[str, dict[int, Any]]] = {}
        for row in self:
            for name, value in row.items():
                mode, _, key = name.partition("/")
                mode, key = (mode, key) if key and mode in MODES else ("train", name)
                if name != "step":
                    found.setdefault(mode, {}).setdefault(key, {})[row["step"]] = value
        return found


@dataclass
class Summary:
    """Steps done, why it ended, the last value of every metric, and all rows in `history`, one a step."""

    steps: int = 0
    reason: str = ""
    latest: dict[str, Any] = field(default_factory=dict)
    history: History = field(default_factory=History)
    name: str = ""

    def __post_init__(self) -> None:
        self.history = History(self.history)

    def series(self, metric: str) -> tuple[list[int], list[Any]]:
        """Steps and values of a metric such as "eval/accuracy"; UsageError where it was never logged."""
        rows = [(row["step"], row[metric]) for row in self.history if metric in row]
        if not rows:
            known = sorted({name for row in self.history for name in row} - {"step"})
            raise UsageError(f"{metric!r} was never logged; this summary has {', '.join(known) or 'no metrics'}.")
        return [step for step, _ in rows], [value for _, value in rows]

    def save(self, path: str | Path) -> None:
        """Writes all of it as JSON."""
        Path(path).write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Summary":
        """Reads what `save` wrote; UsageError where the file is absent or something else."""
        return _loaded(path, "a summary that Summary.save wrote", lambda kept: cls(**kept))


class Experiment:
    """Summaries to compare under one name, one file of all (training.experiment.Experiment is a config's objects).

    Each summary has a name of its own; UsageError for one without or one that is there already.
    """

    def __init__(self, name: str, summaries: "list[Summary] | tuple[Summary, ...]" = ()):
        self.name = name
        self.summaries: dict[str, Summary] = {}
        for summary in summaries:
            self.add(summary)

    def add(self, summary: Summary) -> None:
        """Takes a summary in."""
        if not summary.name:
            raise UsageError('a summary of an experiment needs a name; needed: estimator.fit("name") or summary.name.')
        if summary.name in self.summaries:
            raise UsageError(f"the experiment {self.name!r} has a summary {summary.name!r} already.")
        self.summaries[summary.name] = summary

    def __getitem__(self, name: str) -> Summary:
        if name not in self.summaries:
            raise UsageError(f"there is no summary {name!r} in {self.name!r}; it has {', '.join(self.summaries)}.")
        return self.summaries[name]

    def average(self, metric: str) -> tuple[list[int], list[float], list[float]]:
        """Steps, means and sample standard deviations of a metric, at each step over the summaries that logged it.

        The deviation of a single value is 0. UsageError where none has logged it.
        """
        values: dict[int, list[float]] = {}
        for summary in self.summaries.values():
            for row in summary.history:
                if metric in row:
                    values.setdefault(row["step"], []).append(float(row[metric]))
        if not values:
            raise UsageError(f"no summary of {self.name!r} has logged {metric!r}.")
        steps = sorted(values)
        spreads = [statistics.stdev(values[step]) if len(values[step]) > 1 else 0.0 for step in steps]
        return steps, [statistics.fmean(values[step]) for step in steps], spreads

    def save(self, path: str | Path) -> None:
        """Writes all of it as JSON, for `load` and for `scripts/run_estimator.py logs`."""
        kept = {"experiment": self.name, "summaries": [asdict(summary) for summary in self.summaries.values()]}
        Path(path).write_text(json.dumps(kept) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Experiment":
        """Reads what `save` wrote; UsageError where the file is absent or something else."""

        def made(kept: dict[str, Any]) -> Experiment:
            return cls(kept["experiment"], [Summary(**summary) for summary in kept["summaries"]])

        return _loaded(path, "an experiment that Experiment.save wrote", made)


def _loaded(path: str | Path, what: str, make: Callable[[Any], Any]) -> Any:
    try:
        return make(json.loads(Path(path).read_text()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is not {what}: {error}.") from error


def tell_skipped(state: Mapping[str, Any], steps: int, rank: int) -> None:
    """Rank 0 prints how many updates were skipped, if any, from a step's state; fp16 finds its scale that way."""
    skipped = 0 if "scaler" in state else int(state["skipped"].item())
    if skipped and rank == 0:
        print(f"warning: {skipped} of {steps} updates were skipped: a loss or gradient was not finite.")
