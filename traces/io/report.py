"""A report on a test: cases with criteria, passed or failed, as JSON and Markdown."""

import inspect
import json
import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UsageError
from traces.io.logger import spelled
from traces.trace import Trace
from training.data import as_numpy, plain


class TestCase:
    """What must hold of a test.

    criteria(key, ...): its arguments' names are data keys. aggregate: it is called at the end with the metrics and
    gives one bool; else for each batch with arrays and gives a bool array (B,), and the case passes while at most
    `fail_threshold` samples fail.
    """

    __test__ = False  # pytest collects classes of this name

    def __init__(self, description: str, criteria: Callable[..., Any], aggregate: bool = True, fail_threshold: int = 0):
        if aggregate and fail_threshold:
            raise UsageError(f"fail_threshold counts samples: an aggregate case takes none, got {fail_threshold}.")
        self.description, self.criteria = description, criteria
        self.aggregate, self.fail_threshold = aggregate, fail_threshold
        self.keys = tuple(inspect.signature(criteria).parameters)
        self.clear()

    def clear(self) -> None:
        """Forgets the last test."""
        self.passed: bool | None = None
        self.values: dict[str, Any] = {}
        self.samples, self.failed, self.failed_ids = 0, 0, []

    def judge_batch(self, data: Any, ids: np.ndarray | None) -> None:
        """Counts the samples of a batch that fail."""
        result = np.asarray(as_numpy(self.criteria(*(as_numpy(data[key]) for key in self.keys))))
        if result.dtype != bool or result.ndim == 0:
            raise UsageError(
                f"the criteria of {self.description!r} must give a bool array (B,), got {result.dtype} {result.shape}."
            )
        result = result.reshape(-1)
        if ids is not None and len(ids) != len(result):
            raise UsageError(f"the criteria of {self.description!r} gave {len(result)} results for {len(ids)} samples.")
        self.samples, self.failed = self.samples + len(result), self.failed + int((~result).sum())
        self.failed_ids += [] if ids is None else ids[~result].tolist()

    def judge(self, data: Any) -> None:
        """Judges the metrics of the whole test."""
        self.values = {key: plain(data[key]) for key in self.keys}
        given = (np.asarray(value) if isinstance(value, list) else value for value in self.values.values())
        result = self.criteria(*given)
        if not isinstance(result, bool | np.bool_):
            raise UsageError(f"the criteria of {self.description!r} must give a bool, got {type(result).__name__}.")
        self.passed = bool(result)

    def facts(self, with_ids: bool) -> dict[str, Any]:
        """The case as JSON-able values."""
        if self.aggregate:
            return {"test_type": "aggregate", "description": self.description, "passed": self.passed,
                    "inputs": self.values}  # fmt: skip
        facts = {"test_type": "per-instance", "description": self.description,
                 "passed": self.failed <= self.fail_threshold, "samples": self.samples,
                 "fail_threshold": self.fail_threshold, "fail_number": self.failed}  # fmt: skip
        return facts | ({"fail_id": self.failed_ids} if with_ids else {})


class TestReport(Trace):
    """Runs test cases in test mode and writes <save_path>/<title>_TestReport.json and .md.

    test_title: None for the Summary's name. data_id: a batch key of sample ids, listed where samples fail. Must stand
    behind the traces that make the cases' metrics.
    """

    __test__ = False

    def __init__(self, test_cases: TestCase | Sequence[TestCase], save_path: str | Path, test_title: str | None = None,
                 data_id: str | None = None):  # fmt: skip
        self.cases = [test_cases] if isinstance(test_cases, TestCase) else list(test_cases)
        keys = dict.fromkeys(key for case in self.cases if not case.aggregate for key in case.keys)
        super().__init__([*keys, *(() if data_id is None else (data_id,))], mode="test")
        self.folder, self.title, self.data_id = Path(save_path), test_title, data_id
        self.began = 0.0

    def on_begin(self, data: Any) -> None:
        """Starts anew."""
        self.began = time.perf_counter()
        for case in self.cases:
            case.clear()

    def on_batch_end(self, data: Any) -> None:
        """Judges the samples of a batch."""
        ids = None if self.data_id is None else np.asarray(as_numpy(data[self.data_id])).reshape(-1)
        for case in self.cases:
            if not case.aggregate:
                case.judge_batch(data, ids)

    def on_epoch_end(self, data: Any) -> None:
        """Judges the metrics, and writes the report."""
        for case in self.cases:
            if case.aggregate:
                case.judge(data)
        title = self.title or getattr(self.estimator.summary, "name", "") or "test"
        tests = [case.facts(self.data_id is not None) for case in self.cases]
        report = {"title": title, "timestamp": datetime.now().isoformat(timespec="seconds"),
                  "execution_time(s)": round(time.perf_counter() - self.began, 3), "tests": tests}  # fmt: skip
        stem = re.sub(r"\W+", "_", title.lower()).strip("_") + "_TestReport"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{stem}.json").write_text(json.dumps(report, indent=2) + "\n")
        (self.folder / f"{stem}.md").write_text(markdown(report))


def markdown(report: dict[str, Any]) -> str:
    """The report as Markdown: a summary, then the failed cases before the passed ones."""
    tests = sorted(report["tests"], key=lambda test: test["passed"])
    passed = sum(test["passed"] for test in tests)
    lines = [f"# {report['title']}", "", f"{report['timestamp']}, {report['execution_time(s)']} s: {passed} of "
             f"{len(tests)} tests passed.", "", "| result | test | kind | details |", "|---|---|---|---|"]  # fmt: skip
    for test in tests:
        if test["test_type"] == "aggregate":
            details = ", ".join(f"{key} = {spelled(value)}" for key, value in test["inputs"].items())
        else:
            details = f"{test['fail_number']} of {test['samples']} samples fail, {test['fail_threshold']} may"
            ids = test.get("fail_id", [])
            details += f"; ids {', '.join(map(str, ids[:20]))}{', ...' if len(ids) > 20 else ''}" if ids else ""
        word = "passed" if test["passed"] else "**failed**"
        cells = (word, test["description"], test["test_type"], details)
        lines.append("| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
