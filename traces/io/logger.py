"""Traces that print: losses every so many steps, metrics of every epoch, and how far a training is."""

import time
from typing import Any

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError
from runtime.timing import StepClock
from traces.trace import Trace
from training.data import plain


class Logger(Trace):
    """Prints what FastEstimator's users know: a line every `log_steps` steps, one an epoch, one an evaluation.

    A train line has losses and monitored keys (their values at this step), learning rates and steps/sec; that of an
    evaluation every value that was logged under its mode, wherever this trace stands in the list. The train line's
    values are also logged, so that the Summary keeps them. Within an evaluation it says how far that is after the
    estimator's eval_log_steps. log_steps: None for the estimator's, 0 for lines of epochs and evaluations only.
    """

    def __init__(self, log_steps: int | None = None):
        super().__init__()
        if log_steps is not None and log_steps < 0:
            raise UsageError(f"log_steps must be 0 or more, or None, got {log_steps}.")
        self.log_steps = log_steps
        self.every: int | None = log_steps  # None: says nothing
        self.batches, self.since = 0, (0, 0.0)  # of a data set's evaluation; at the last line: of them, and the time
        self.logged: dict[str, dict[str, Any]] = {}  # by mode, not printed yet
        self.printed = 0  # the step whose epoch has its line
        self.clock, self.began = StepClock(), 0.0

    def on_begin(self, data: Any) -> None:
        """Says where the training starts."""
        self.inputs = self.estimator.monitor_names
        self.every = self.estimator.log_steps if self.log_steps is None else self.log_steps
        self.clock, self.began, self.logged = StepClock(), time.perf_counter(), {}
        self.printed = self.estimator.step
        if self.estimator.mode == "train":
            self._say("Start", {"step": self.estimator.step, "steps": self.estimator.total_steps})

    def _say(self, head: str, values: dict[str, Any]) -> None:
        if self.every is not None:
            print(line(head, values))

    def on_epoch_begin(self, data: Any) -> None:
        """Starts to count the batches of an evaluation, after the line of the epoch that it follows."""
        self._end_epoch()
        self.batches, self.since = 0, (0, time.perf_counter())

    def on_ds_begin(self, data: Any) -> None:
        """Starts anew for a data set."""
        self.batches, self.since = 0, (0, time.perf_counter())

    def _end_epoch(self) -> None:
        estimator = self.estimator
        if self.printed != estimator.step and estimator.step % estimator.steps_per_epoch == 0:
            spent = {"epoch": estimator.epoch, "total_time(sec)": time.perf_counter() - self.began}
            self._say("Train", {"step": estimator.step, **spent, **self.logged.pop("train", {})})
            self.printed = estimator.step

    def _progress(self, data: Any) -> None:
        """Prints how far an evaluation is, where that is due."""
        estimator, self.batches = self.estimator, self.batches + 1
        total = estimator.pipeline.get_steps("eval", data.ds_id)
        total = min(total, estimator.eval_steps_per_epoch or total)
        due = estimator.eval_log_steps or ((1, total // 3, 2 * total // 3, total) if self.every else ())
        if self.batches in due and self.every is not None:
            now, (before, then) = time.perf_counter(), self.since
            self.since = self.batches, now
            name, rate = (f" ({data.ds_id})" if data.ds_id else ""), (self.batches - before) / max(now - then, 1e-9)
            print(f"Eval Progress{name}: {self.batches}/{total}; steps/sec: {spelled(rate)};")

    def on_batch_end(self, data: Any) -> None:
        """Prints and logs a train line when one is due, and always for the first step."""
        estimator = self.estimator
        if estimator.mode != "train":
            return self._progress(data) if estimator.mode == "eval" else None
        self.clock.tick()
        if self.every and (estimator.step % self.every == 0 or estimator.step == 1):
            names = [name for name in (*estimator.train_step.losses, *self.inputs) if name in data]
            tail = f"|{data.ds_id}" if data.ds_id else ""
            values = {f"{name}{tail}": plain(data[name]) for name in names}
            rates = {name: plain(data[name]) for name in data if name.split("/")[0] == "learning_rate"}
            estimator.log(**{f"train/{name}": value for name, value in (values | rates).items() if scalar(value)})
            self.logged.pop("train", None)
            speed = {"steps/sec": self.clock.rate} if self.clock.rate else {}  # none after one step
            self._say("Train", {"step": estimator.step, **values, **rates, **speed})
        return None

    def on_log(self, values: dict[str, Any]) -> None:
        """Keeps what others log for the mode's next line."""
        for name, value in values.items():
            mode, slash, key = name.partition("/")
            if slash and mode in ("train", "eval", "test"):
                self.logged.setdefault(mode, {})[key] = value

    def on_step_end(self) -> None:
        """Prints an evaluation that ran at this step, and the end of an epoch."""
        estimator = self.estimator
        self._end_epoch()
        if "eval" in self.logged:
            self._say("Eval", {"step": estimator.step, "epoch": estimator.epoch, **self.logged.pop("eval")})

    def on_end(self, data: Any) -> None:
        """Says how it ended: the last step, or the test's values."""
        estimator = self.estimator
        if estimator.mode == "test":
            self._say("Test", {"step": estimator.step, "epoch": estimator.epoch, **self.logged.pop("test", {})})
        else:
            self._say("Finish", {"step": estimator.step, "total_time(sec)": time.perf_counter() - self.began})


class ProgressLogger(Trace):
    """Prints every `every` seconds how far the training is and when it will end; for logs without a terminal."""

    def __init__(self, every: float = 30.0):
        super().__init__(mode="train")
        if every < 0:
            raise UsageError(f"every must be 0 seconds or more, got {every}.")
        self.every, self.first, self.began, self.last = every, 0, 0.0, 0.0

    def on_begin(self, data: Any) -> None:
        """Starts the clock."""
        self.first, self.began = self.estimator.step, time.perf_counter()
        self.last = self.began

    def on_batch_end(self, data: Any) -> None:
        """Prints when it is time."""
        now = time.perf_counter()
        if now - self.last < self.every:
            return
        self.last = now
        done, total = self.estimator.step, self.estimator.total_steps
        rate = (done - self.first) / max(now - self.began, 1e-9)
        of = f"/{total} ({100 * done / total:.1f}%)" if total else ""
        left = f"; left: {clock((total - done) / rate)}" if total and rate else ""
        print(f"Progress: step {done}{of}; {rate:.3g} steps/sec; elapsed: {clock(now - self.began)}{left}")


class Timer(Trace):
    """Logs the seconds of every epoch and evaluation as <mode>/epoch_time(sec), and prints their sums at the end."""

    def __init__(self, mode: Any = None):
        super().__init__(mode=mode)
        self.began: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def on_epoch_begin(self, data: Any) -> None:
        """Starts the clock of this mode."""
        self.began[self.estimator.mode] = time.perf_counter()

    def on_epoch_end(self, data: Any) -> None:
        """Stops it once the device is done."""
        mode = self.estimator.mode
        mx.synchronize()
        spent = time.perf_counter() - self.began.pop(mode, time.perf_counter())
        self.seconds[mode] = self.seconds.get(mode, 0.0) + spent
        data.write_with_log("epoch_time(sec)", spent)

    def on_end(self, data: Any) -> None:
        """Prints the sums."""
        print("Timer: " + "; ".join(f"{mode}: {clock(spent)}" for mode, spent in self.seconds.items()))

    def state_dict(self) -> dict[str, Any]:
        """The seconds so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on counting."""
        self.seconds = dict(state["seconds"])


def line(head: str, values: dict[str, Any]) -> str:
    """One line `head: name: value; ...`; arrays with several numbers follow below it."""
    numbers = {name: plain(value) for name, value in values.items()}
    short = {name: value for name, value in numbers.items() if np.size(value) == 1}
    text = f"{head}: " + " ".join(f"{name}: {spelled(value)};" for name, value in short.items())
    arrays = {name: np.asarray(value) for name, value in numbers.items() if name not in short}
    below = [f"\n{name}:\n{np.array2string(array, separator=',')};" for name, array in arrays.items()]
    return text + "".join(below)


def scalar(value: Any) -> bool:
    """Whether a value is one number."""
    return isinstance(value, int | float)


def spelled(value: Any) -> str:
    """A number with six digits; text as it is."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def clock(seconds: float) -> str:
    """Seconds as "1:02:03" or "2.5 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
