"""Where the time of a training step goes, layer by layer."""

import csv
import json
import statistics
import time
from pathlib import Path
from typing import Any

import mlx.core as mx

from runtime.errors import UsageError
from runtime.layer_clock import Entry, LayerClock, Span
from runtime.roofline import Roof, measured
from runtime.seed import step_key
from runtime.slots import snapshot, write
from runtime.upload import to_device
from traces.trace import Trace
from training.data import Data
from training.tracing import eager

COLUMNS = ("layer", "calls", "forward_ms", "backward_ms", "share", "gflop", "mb", "of_roof")


class LayerProfile(Trace):
    """At the end: time, operations and bytes of every layer in a training step beside what the device can do at most.

    A layer's time is its own, without the layers that it calls. To tell layers apart the step runs uncompiled and waits
    for each, which costs time itself: the same step without waiting, and compiled (of an earlier StepProfile), are told
    beside it. What is shown is the step of median time among `repeats`, so that its parts add up; the state is as
    before afterwards. of_roof: the least time for the layer's work over its time; above 1 where data stay in a cache.
    Prints the `rows` longest; writes layers.csv and trace.json (for chrome://tracing or Perfetto) into the run's
    folder.
    """

    def __init__(self, repeats: int = 5, rows: int = 25):
        super().__init__(mode="train")
        if repeats < 1 or rows < 1:
            raise UsageError(f"LayerProfile needs repeats and rows of at least 1, got {repeats} and {rows}.")
        self.repeats, self.rows = repeats, rows
        self.entries: dict[str, Entry] = {}
        self.spans: list[Span] = []

    def on_end(self, data: Data) -> None:
        """Takes the steps, prints the table, writes the files."""
        estimator = self.estimator
        step, held = eager(estimator.train_step), snapshot(estimator.train_step.state)
        ds_id = estimator.pipeline.get_ds_ids("train")[0]
        batch, key = to_device(estimator.pipeline.first("train", ds_id)), step_key(estimator.seed, estimator.step, 0)
        phases = estimator.network.phases(estimator.step)
        clock = LayerClock(estimator.network.models)

        def take() -> tuple[float, dict[str, Entry], list[Span]]:
            clock.begin()
            began = time.perf_counter()
            out = step(batch, key, (), True, phases, ds_id)
            clock.end([step.state, out])
            return time.perf_counter() - began, clock.entries, clock.spans

        plain = sorted(take()[0] for _ in range(self.repeats + 1))
        with clock.attached():
            taken = sorted((take() for _ in range(self.repeats + 1)), key=lambda one: one[0])
        write(estimator.train_step.state, held)
        wall, self.entries, self.spans = taken[len(taken) // 2]
        precision = mx.float32 if step.dtype is None else step.dtype
        self._tell(wall, statistics.median(plain), measured(precision), str(precision).removeprefix("mlx.core."))

    def _tell(self, wall: float, plain: float, roof: Roof, precision: str) -> None:
        total = sum(entry.total for entry in self.entries.values())
        table = [row(name, entry, total, roof) for name, entry in self.entries.items()]
        table.sort(key=lambda one: -(one[2] + one[3]))
        values = {"sum_ms": 1e3 * total, "step_ms": 1e3 * wall, "uncompiled_ms": 1e3 * plain,
                  "peak_gflops": roof.flops / 1e9, "peak_gb_per_s": roof.bandwidth / 1e9}  # fmt: skip
        latest = self.estimator.summary.latest
        compiled = latest.get("profile/step_ms_median") if self.estimator.train_step.compile else None
        self.estimator.log(**{f"profile/layers/{name}": value for name, value in values.items()})
        folder: Path = self.estimator.workspace.folder
        with (folder / "layers.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *table])
        (folder / "trace.json").write_text(json.dumps(chrome_trace(self.spans)))
        print("\n".join(lines(table[: self.rows])))
        if table[self.rows :]:
            print(f"{len(table) - self.rows} more in {folder / 'layers.csv'}")
        print(
            f"sum of the parts {values['sum_ms']:.2f} ms, the step that they are of {values['step_ms']:.2f} ms; "
            f"without waiting for every layer {values['uncompiled_ms']:.2f} ms"
            + ("" if compiled is None else f", compiled {compiled:.2f} ms")
            + f"\nroof: {roof.flops / 1e9:.4g} GFLOP/s (product, {precision}), {roof.bandwidth / 1e9:.4g} GB/s (copy); "
            f"time line: {folder / 'trace.json'}"
        )


def row(name: str, entry: Entry, total: float, roof: Roof) -> tuple[Any, ...]:
    """One layer as `COLUMNS` name it; without work of its own the last three are None."""
    work, seconds = entry.both, entry.total
    counted = (work.flops / 1e9, work.moved / 1e6, roof.seconds(work) / seconds) if work.moved and seconds else None
    return (name, entry.calls, *(1e3 * entry.seconds[phase] for phase in ("forward", "backward")), seconds / total,
            *(counted or (None, None, None)))  # fmt: skip


def lines(table: list[tuple]) -> list[str]:
    """The table for people."""
    width = max(len(one[0]) for one in table) + 2
    titles = zip(("forward", "backward", "share", "GFLOP", "MB", "roof"), (10, 10, 8, 10, 10, 7), strict=True)
    head = f"{'layer':<{width}}{'calls':>6}" + "".join(f"{title:>{space}}" for title, space in titles)
    body = []
    for name, calls, forward, backward, share, gflop, mb, of_roof in table:
        work = f"{'-':>10}{'-':>10}{'-':>7}" if gflop is None else f"{gflop:>10.4g}{mb:>10.4g}{of_roof:>7.0%}"
        body.append(f"{name:<{width}}{calls:>6}{forward:>10.3f}{backward:>10.3f}{share:>8.1%}{work}")
    return [head, *body]


def chrome_trace(spans: list[Span]) -> dict[str, Any]:
    """Spans in the Trace Event Format, in microseconds: whole calls (nested) in one line, own time in another."""
    start = min((span.start for span in spans), default=0.0)
    lanes = {"call": 1, "forward": 2, "backward": 2}
    names = [{"name": "thread_name", "ph": "M", "pid": 1, "tid": tid, "args": {"name": name}}
             for tid, name in ((1, "calls"), (2, "own time"))]  # fmt: skip
    events = [
        {"name": span.name, "cat": span.phase, "ph": "X", "pid": 1, "tid": lanes[span.phase],
         "ts": 1e6 * (span.start - start), "dur": 1e6 * span.seconds}
        for span in sorted(spans, key=lambda one: (one.start, -one.seconds))
    ]  # fmt: skip
    return {"traceEvents": [*names, *events], "displayTimeUnit": "ms"}
