"""Traces that write: the record of metrics and the checkpoints."""

import math
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError, closest
from runtime.timing import StepClock
from traces.trace import Trace
from training import checkpoint
from training.data import Data, plain
from training.frequency import in_steps


class MetricLogger(Trace):
    """Logs training losses and the ops' metrics (mean since the last row), what updates report, speed and memory.

    A step in which a metric is NaN, since it is of no row there, counts nothing for it. every: steps between rows.
    """

    def __init__(self, every: int = 50):
        super().__init__(mode="train")
        if every < 1:
            raise UsageError(f"trackio.log_every must be at least 1, got {every}.")
        self.every = every
        self.window: dict[str, list] = {}
        self.clock = StepClock()

    def on_begin(self, data: Data) -> None:
        """Starts the clock of steps/s; asks for the ops' metrics."""
        self.inputs = self.estimator.network.metrics
        self.clock = StepClock()

    def on_batch_end(self, data: Data) -> None:
        """Keeps the losses; on every n-th step logs."""
        estimator = self.estimator
        self.clock.tick()
        for name in (*estimator.train_step.losses, *self.inputs):
            if name in data:  # not every data set has every loss
                self.window.setdefault(name, []).append(data[name])
        if estimator.step % self.every == 0:
            names = [n for n in data if n.split("/")[0] in ("grad_norm", "learning_rate", "skipped")]
            losses = estimator.train_step.losses
            values = {f"train/{name}": mean(window, name in losses) for name, window in self._means().items()}
            values |= {f"train/{name}": plain(data[name]) for name in names}
            values |= {"epoch": round(estimator.step / estimator.steps_per_epoch, 6)}
            values |= {"perf/steps_per_second": self.clock.rate, "perf/peak_memory_mb": mx.get_peak_memory() / 2**20}
            values |= {"perf/traces": estimator.traced}
            self.window = {}
            estimator.log(**values)

    def state_dict(self) -> dict[str, Any]:
        """The values since the last row."""
        return {"window": self._means()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the open window back."""
        self.window = state["window"]

    def _means(self) -> dict[str, list[float]]:
        """The window's values as numbers, of arrays their means."""
        return {name: [float(np.mean(plain(value))) for value in values] for name, values in self.window.items()}


def mean(window: list[float], strict: bool) -> float:
    """The mean of numbers; unless `strict`, of those that are not NaN, and NaN only where all are."""
    known = window if strict else [value for value in window if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


class Record(Trace):
    """Hands every logged value to the workspace's tracker (metrics.jsonl and trackio) and closes it at the end."""

    def __init__(self):
        super().__init__(mode="train")

    def on_log(self, values: dict[str, Any]) -> None:
        """One step, one row."""
        self.estimator.workspace.tracker.log(self.estimator.step, values)

    def on_close(self) -> None:
        """Closes metrics.jsonl and the trackio run."""
        self.estimator.workspace.tracker.finish()


class CheckpointSaver(Trace):
    """Saves the whole state: every `every`, at the end, and when a signal asks.

    keep_last: newest files kept. keep_best: files kept by the lowest (or highest, mode_best="max") `monitor`, under
    best_*. archive_every: epochs between files that are kept for ever, named <run_name>_epoch_XXXX.
    A failed save (full disk) leaves what is there, says so once a time, and is tried again; a failed last save raises.
    Of several processes all gather the state, and rank 0 writes it.
    """

    everywhere = True

    def __init__(self, every: str | int | None = "1e", keep_last: int = 2, keep_best: int = 0,
                 monitor: str = "eval/loss", mode_best: Literal["min", "max"] = "min",
                 archive_every: int | None = None):  # fmt: skip
        super().__init__(mode="train")
        if keep_last < 1:
            raise UsageError(f"keep_last must be at least 1, got {keep_last}.")
        self.every = every
        self.keep_last, self.keep_best, self.archive_every = keep_last, keep_best, archive_every
        self.monitor, self.sign = monitor, 1 if mode_best == "min" else -1
        self.best: list[list] = []  # [value, file name], best first
        self.saved_at = -1
        self.steps: int | None = None  # `every` in steps

    def on_begin(self, data: Data) -> None:
        """Reads the frequency, so that a wrong one fails before the first step."""
        self.steps = in_steps(self.every, self.estimator.steps_per_epoch, "save_every")

    def on_step_end(self) -> None:
        """Saves where a save is due."""
        estimator = self.estimator
        epoch_end = estimator.step % estimator.steps_per_epoch == 0
        archive = self.archive_every and epoch_end and estimator.epoch % self.archive_every == 0
        if archive or (self.steps and estimator.step % self.steps == 0):
            self._try_save(bool(archive))
        if estimator.signal:
            self._last_save()

    def on_end(self, data: Data) -> None:
        """The last save; says where there was nothing to know the best ones by."""
        self._last_save()
        latest = self.estimator.summary.latest
        if self.keep_best and self.monitor not in latest and self.estimator.world.rank == 0:
            known = closest(self.monitor, [name for name in latest if isinstance(latest[name], int | float)])
            print(f"warning: keep_best={self.keep_best} kept nothing, {self.monitor!r} was never logged; nearest: "
                  f"{known or 'none'}.")  # fmt: skip

    def rescue(self) -> None:
        """Saves beside all that is there, before an error ends the run; of several processes none can do so alone."""
        if not self.estimator.world.many and self.saved_at != self.estimator.step:
            self._try_save(archive=False, prune=False)

    def _last_save(self) -> None:
        """After a signal too; an error here ends the run with an error."""
        if self.saved_at == self.estimator.step:
            return
        try:
            self._save(archive=False)
        except OSError as error:
            folder = self.estimator.workspace.checkpoints
            raise UsageError(
                f"the last checkpoint could not be saved in {folder} ({error}); older ones are untouched. Make room "
                "there and go on with resume=true."
            ) from error

    def _try_save(self, archive: bool, prune: bool = True) -> None:
        try:
            self._save(archive, prune)
        except OSError as error:
            print(f"warning: checkpoint at step {self.estimator.step} not saved ({error}); older ones are untouched.")

    def _save(self, archive: bool, prune: bool = True) -> None:
        estimator, workspace = self.estimator, self.estimator.workspace
        arrays = estimator.state_arrays()
        if estimator.world.rank:
            self.saved_at = estimator.step
            return
        path = workspace.checkpoints / f"step_{estimator.step:08d}.safetensors"
        value = estimator.summary.latest.get(self.monitor)
        better = self._rank(path.name, value)
        meta = {**workspace.meta, **estimator.state_dict(), "tracker": workspace.tracker.state()}
        checkpoint.save(path, arrays, meta)
        self.saved_at = estimator.step
        if archive:
            self._link(path, path.with_name(f"{workspace.meta['run_name']}_epoch_{estimator.epoch:04d}.safetensors"))
        if better:
            self._link(path, path.with_name(f"best_{path.name}"))
        if prune:
            self._prune(path.parent)

    def _rank(self, name: str, value: float | None) -> bool:
        """Whether this value is among the best; keeps the list. What is not finite is never among them."""
        if not self.keep_best or value is None or not math.isfinite(value) or name in [n for _, n in self.best]:
            return False
        self.best = sorted([*self.best, [value, name]], key=lambda pair: self.sign * pair[0])[: self.keep_best]
        return name in [n for _, n in self.best]

    @staticmethod
    def _link(path: Path, to: Path) -> None:
        to.unlink(missing_ok=True)
        to.hardlink_to(path)

    def _prune(self, folder: Path) -> None:
        # files of later steps are damaged: a run goes on from the newest whole one
        files = sorted(folder.glob("step_*.safetensors"))
        ahead = [path for path in files if path.name > f"step_{self.estimator.step:08d}.safetensors"]
        for path in [*files[: len(files) - len(ahead)][: -self.keep_last], *ahead]:
            path.unlink()
        kept = {f"best_{name}" for _, name in self.best}
        for path in folder.glob("best_step_*.safetensors"):
            if path.name not in kept:
                path.unlink()

    def state_dict(self) -> dict[str, Any]:
        """The best files so far."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the list of best files back."""
        self.best = state["best"]
