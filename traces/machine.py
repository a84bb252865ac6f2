"""How busy the machine is: processors, memory, power, beside the metrics."""

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from runtime.errors import UsageError
from runtime.sensors import Linux, Macmon, Nvidia, Process
from traces.trace import Trace
from training.data import Data

GRACE = 2.0  # seconds for the thread to end


def here() -> list[Callable[[], Any]]:
    """The kinds of sensors for this machine and MLX's device."""
    if sys.platform == "darwin":
        return [Process, Macmon]
    on_gpu = mx.default_device() == mx.Device(mx.gpu)
    return [Process, Linux, *([Nvidia] if on_gpu else [])]


class Machine(Trace):
    """Logs "machine/<name>", means since the last row, every `every` steps; on the dashboard also by time.

    A thread of its own reads the sensors every `seconds`, so that no step waits for them; a row before its first
    reading has no such values. What can't be read is said once, and left out. sensors: other ones, makers of what
    runtime/sensors.py describes; None for those of this machine.
    """

    def __init__(self, seconds: float = 5.0, every: int = 50, sensors: Sequence[Callable[[], Any]] | None = None):
        super().__init__(mode="train")
        if seconds <= 0 or every < 1:
            raise UsageError(f"seconds must be above 0 and every at least 1, got {seconds} and {every}.")
        self.seconds, self.every, self.makers = seconds, every, sensors
        self.readings: list[dict[str, float]] = []
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def on_begin(self, data: Data) -> None:
        """Starts the thread."""
        makers = here() if self.makers is None else self.makers
        self._over.clear()
        self._thread = threading.Thread(target=self._follow, args=(makers,), name="machine", daemon=True)
        self._thread.start()

    def on_batch_end(self, data: Data) -> None:
        """Logs where a row is due."""
        if self.estimator.step % self.every:
            return
        readings, self.readings = self.readings, []
        names = sorted({name for reading in readings for name in reading})
        found = {name: [reading[name] for reading in readings if name in reading] for name in names}
        if found:
            self.estimator.log(**{f"machine/{name}": sum(v) / len(v) for name, v in found.items()})

    def on_close(self) -> None:
        """Ends the thread; one that hangs in a sensor is left behind."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=GRACE)

    def _follow(self, makers: Sequence[Callable[[], Any]]) -> None:
        """Reads until the run is over."""
        workspace, sources = self.estimator.workspace, []
        for make in makers:
            try:
                sources.append(make())
            except UsageError as error:
                (workspace.say if workspace else print)(f"no metrics of {make.__name__}: {error}")
        try:
            while not self._over.wait(self.seconds):
                values = {name: value for source in sources for name, value in source.read().items()}
                self.readings.append(values)
                if workspace:
                    workspace.tracker.system(values)
        finally:
            for source in sources:
                source.close()
