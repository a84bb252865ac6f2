"""Telling about a run that goes wrong while it runs: in its log, its record and on the dashboard."""

import math
import statistics
import threading
import time
from typing import Any

from runtime.errors import UsageError
from traces.trace import Trace
from training.data import Data, plain

LEVELS = ("info", "warn", "error")


class Alerts(Trace):
    """Says once for each incident that updates are skipped, a loss has diverged, or no step has ended for long.

    not_finite, diverged, stalled: the level of each, info, warn or error; None switches it off. TRACKIO_WEBHOOK_URL
    (Slack's, Discord's or any other) gets what has at least the level TRACKIO_WEBHOOK_MIN_LEVEL.
    not_finite: an update was skipped, or a loss is NaN or infinite; over after `patience` steps without. With fp16 a
    skipped update counts where its loss isn't finite or the loss scale is at its end: others are how it finds its size.
    diverged: the mean of a loss's last `window` values was `patience` steps in a row above
    best + (factor - 1) max(|best|, s), best being the lowest such mean and s the values' standard deviation then. One
    spike is none as long as patience > window. stalled: no batch has ended for `seconds`.
    Looks every `every` steps, since looking waits for the device.
    """

    def __init__(
        self, not_finite: str | None = "error", diverged: str | None = "warn", stalled: str | None = "warn",
        factor: float = 3.0, window: int = 20, patience: int = 50, seconds: float = 600.0, every: int = 10,
    ):  # fmt: skip
        super().__init__(mode=("train", "eval"))
        self.levels = {"not_finite": not_finite, "diverged": diverged, "stalled": stalled}
        for name, level in self.levels.items():
            if level not in (None, *LEVELS):
                raise UsageError(f"{name} must be one of {', '.join(LEVELS)} or null, got {level!r}.")
        if min(window, patience, every) < 1 or factor <= 1 or seconds <= 0:
            raise UsageError(
                "needed: window, patience and every of 1 or more, factor above 1, seconds above 0; got "
                f"{window}, {patience}, {every}, {factor} and {seconds}."
            )
        self.factor, self.window, self.patience, self.seconds, self.every = factor, window, patience, seconds, every
        self.unread: dict[str, list] = {}  # losses since the last look, some still on the device
        self.courses: dict[str, dict[str, Any]] = {}  # of each loss: last values, best mean, steps above
        self.skipped, self.bad_step, self.open = 0, -patience, set()  # open: incidents that go on
        self.beat, self._over = time.monotonic(), threading.Event()
        self._watcher: threading.Thread | None = None

    def on_begin(self, data: Data) -> None:
        """Starts to watch the clock."""
        self.beat = time.monotonic()
        if self.levels["stalled"]:
            self._over.clear()
            self._watcher = threading.Thread(target=self._watch, name="alerts", daemon=True)
            self._watcher.start()

    def on_batch_end(self, data: Data) -> None:
        """Keeps the losses; looks at them when that is due."""
        self.beat = time.monotonic()
        if data.mode != "train":
            return
        for name in self.estimator.train_step.losses:
            if name in data:
                self.unread.setdefault(name, []).append(data[name])
        if self.estimator.step % self.every == 0:
            self._look(int(plain(data["skipped"])))

    def on_epoch_end(self, data: Data) -> None:
        """Looks at the losses of an evaluation."""
        if data.mode == "eval":
            names = [name for name in self.estimator.network.get_loss_keys() if name in data]
            self._look_finite({name: [plain(data[name])] for name in names}, "eval/", 0)

    def on_close(self) -> None:
        """Stops watching."""
        self._over.set()

    def _look(self, skipped: int) -> None:
        """Reads what the steps since the last look gave; skipped: updates so far."""
        losses, self.unread = self._read(), {}
        new, self.skipped = skipped - self.skipped, skipped
        scaler = self.estimator.train_step.state.get("scaler")
        self._look_finite(losses, "train/", 0 if scaler and plain(scaler["scale"]) > 1 else new)
        for name, values in losses.items():
            course = self.courses.setdefault(name, {"last": [], "best": None, "spread": 0.0, "above": 0})
            for value in filter(math.isfinite, values):
                self._follow(name, course, value)

    def _look_finite(self, losses: dict[str, list[float]], mode: str, skipped: int) -> None:
        bad = {name: [value for value in values if not math.isfinite(value)] for name, values in losses.items()}
        told = [f"{mode}{name} = {values[-1]}" for name, values in bad.items() if values]
        told += [f"{skipped} update{'s' * (skipped > 1)} skipped"] * bool(skipped)
        if told:
            self.bad_step = self.estimator.step
            self._incident("not_finite", f"a loss or gradient is not finite: {', '.join(told)}")
        elif self.estimator.step - self.bad_step >= self.patience:
            self.open.discard("not_finite")

    def _follow(self, name: str, course: dict[str, Any], value: float) -> None:
        """One more value of a loss."""
        last = course["last"]
        last.append(value)
        if len(last) < self.window:
            return
        del last[: -self.window]
        mean = statistics.fmean(last)
        if course["best"] is None or mean < course["best"]:
            course["best"], course["spread"] = mean, statistics.pstdev(last, mean)
        bound = course["best"] + (self.factor - 1) * max(abs(course["best"]), course["spread"])
        course["above"] = course["above"] + 1 if mean > bound else 0
        if course["above"] >= self.patience:
            told = f"mean of its last {self.window} values {mean:.4g}, at its best {course['best']:.4g}"
            self._incident(f"diverged {name}", f"{name} has diverged: {told}")
        elif not course["above"]:
            self.open.discard(f"diverged {name}")

    def _incident(self, incident: str, text: str) -> None:
        """Tells of it unless it goes on."""
        kind = incident.partition(" ")[0]
        if incident not in self.open and self.levels[kind]:
            told = self._say(kind, text)
            self.estimator.log(**{f"alert/{incident.replace(' ', '/')}": told})
        self.open.add(incident)

    def _say(self, kind: str, text: str) -> str:
        """Prints an alert, into the run's log too where it has one; "<level>: <text>"."""
        told, workspace = f"{self.levels[kind]}: {text}", self.estimator.workspace
        (workspace.say if workspace else print)(f"{told} (step {self.estimator.step})")
        return told

    def _watch(self) -> None:
        """Tells, once for each step, that it doesn't end."""
        told = None
        while not self._over.wait(self.seconds / 10):
            beat = self.beat
            if beat != told and time.monotonic() - beat >= self.seconds:
                told, estimator = beat, self.estimator
                line = self._say("stalled", f"no batch has ended for {self.seconds:g} s")
                if estimator.workspace:  # which takes rows from one thread only
                    estimator.workspace.tracker.alert("alert/stalled", line, estimator.step)

    def _read(self) -> dict[str, list[float]]:
        return {name: [float(plain(value)) for value in values] for name, values in self.unread.items()}

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far, and which incidents go on."""
        return {"unread": self._read(), "courses": self.courses, "skipped": self.skipped, "bad_step": self.bad_step,
                "open": sorted(self.open)}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        self.unread, self.courses, self.skipped = state["unread"], state["courses"], state["skipped"]
        self.bad_step, self.open = state["bad_step"], set(state["open"])
