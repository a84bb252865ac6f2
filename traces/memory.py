"""How much memory a run holds, step by step; what `debug=memory` adds to a run."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.device import synchronize
from runtime.errors import UsageError
from runtime.instantiate import locate
from runtime.memory import memory_usage
from runtime.panels import Chart
from traces.io.batch_display import DRAW
from traces.trace import Trace
from training.data import Data

MIB = 2**20
KINDS = ("active", "peak", "cache", "rss")


class MemoryTimeline(Trace):
    """Writes <folder>/memory.csv (step and MiB of MLX's active arrays, their peak so far, its cache, the process).

    Every `every` steps, each waited for; a picture beside it when the run ends, also by an error. Warns once where the
    active memory grows steadily (`grows`) over `window` rows, after the first `skip` steps and by `least` MiB or more.
    draw(chart, path): or its name. A resumed run goes on in the same file.
    """

    def __init__(self, every: int = 1, window: int = 40, skip: int = 10, least: float = 1.0,
                 draw: Callable | str = DRAW):  # fmt: skip
        super().__init__(mode="train")
        if every < 1 or window < 8 or skip < 0 or least <= 0:
            raise UsageError(
                "every must be at least 1, window at least 8, skip 0 or more and least above 0, "
                f"got {every}, {window}, {skip} and {least}."
            )
        self.every, self.window, self.skip, self.least = every, window, skip, least
        self.draw: Callable = locate(draw) if isinstance(draw, str) else draw
        self.rows: list[tuple[float, ...]] = []
        self.path: Path | None = None
        self.first, self.told = 0, False

    def on_begin(self, data: Data) -> None:
        """Opens the file: anew, or with the rows up to the step that the run goes on from."""
        step = self.estimator.step
        path: Path = self.estimator.workspace.folder / "memory.csv"
        self.path, self.first, self.told = path, step + self.skip, False
        self.rows = [row for row in read(path) if row[0] <= step] if step else []
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("step", *KINDS), *map(_written, self.rows)])

    def on_batch_end(self, data: Data) -> None:
        """A row, on disk at once: what ends for want of memory leaves its rows."""
        step = self.estimator.step
        if step % self.every or self.path is None:
            return
        synchronize(self.estimator.train_step.state, data)
        usage = memory_usage()
        self.rows.append((step, *(usage[kind] / MIB for kind in KINDS)))
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(_written(self.rows[-1]))
        last = [row for row in self.rows[-self.window :] if row[0] > self.first]
        if not self.told and len(last) == self.window and grows([row[1] for row in last], self.least):
            self.told = True
            (begin, low, *_), (end, high, *_) = last[0], last[-1]
            self.estimator.workspace.say(
                f"warning: active memory grows steadily, from {low:.1f} MiB after step {begin:.0f} to {high:.1f} after "
                f"step {end:.0f} ({1024 * (high - low) / (end - begin):.1f} KiB a step): something keeps arrays of "
                "earlier steps, such as a list of losses, or lazy sums that nobody evaluates."
            )

    def on_close(self) -> None:
        """Draws."""
        if self.path is not None and self.rows:
            steps = [row[0] for row in self.rows]
            series = {kind: (steps, [row[i] for row in self.rows]) for i, kind in enumerate(KINDS, 1)}
            self.draw(Chart("memory, MiB", series), self.path.with_suffix(".png"))


def grows(values: list[float], least: float) -> bool:
    """Whether the lowest of each quarter of `values` lies above that of the quarter before, by `least` / 3 each time.

    Noise moves no minimum for long, and a single step up, such as a first evaluation's, raises one quarter only.
    """
    length = len(values) // 4
    lows = [min(values[len(values) - (4 - i) * length :][:length]) for i in range(4)]
    return all(after - before >= least / 3 for before, after in zip(lows, lows[1:], strict=False))


def read(path: Path) -> list[tuple[float, ...]]:
    """The rows of a memory.csv as numbers; a line that a kill cut short is left out."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = list(csv.reader(file))[1:]
    return [tuple(map(float, line)) for line in lines if len(line) == 1 + len(KINDS) and all(line)]


def _written(row: tuple[float, ...]) -> tuple[Any, ...]:
    return int(row[0]), *(f"{value:.3f}" for value in row[1:])
