"""Ending a run whose numbers are no longer finite."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from runtime.errors import UsageError
from runtime.op import as_tuple
from traces.io.record import CheckpointSaver
from traces.trace import Trace
from training.data import Data, as_numpy


class TerminateOnNaN(Trace):
    """Ends the run with an error once `patience` updates in a row were skipped for a loss or gradient not finite.

    Looks every `every` steps, since looking waits for the device. Checkpoints are saved first, none is removed; the
    weights are those before the first bad step. monitor_names: keys that stop the run (without an error) as soon as
    one is NaN or infinite: losses, what updates report, and what earlier traces write; "*" for all of these; None for
    the losses of evaluations.
    """

    def __init__(self, monitor_names: str | Sequence[str] | None = None, mode: str | Sequence[str] | None = None,
                 ds_id: str | Sequence[str] | None = None, patience: int = 10, every: int = 10):  # fmt: skip
        super().__init__(mode=mode, ds_id=ds_id)
        if patience < 1 or every < 1:
            raise UsageError(f"patience and every must be at least 1, got {patience} and {every}.")
        self.patience, self.every, self.everything = patience, every, monitor_names == "*"
        self.names = () if self.everything else as_tuple(monitor_names)

    def on_batch_end(self, data: Data) -> None:
        """Reads the streak of skipped updates, and the monitored keys."""
        estimator = self.estimator
        if data.mode != "train":
            return self._look(data, data if self.everything else self.names)
        if estimator.step % self.every:
            return None
        if (streak := cast(int, data["streak"].item())) >= self.patience:
            losses = ", ".join(f"{name}={data[name].item()}" for name in estimator.train_step.losses if name in data)
            for saver in (trace for trace in estimator.traces if isinstance(trace, CheckpointSaver)):
                saver.rescue()
            raise UsageError(
                f"{streak} updates in a row up to step {estimator.step} had a loss or gradient that is not finite "
                f"({losses}); finite numbers are needed. The weights are those before the first of them; try a lower "
                "learning rate, clip=1.0 or precision=fp32."
            )
        return self._look(data, data if self.everything else self.names)

    def on_epoch_end(self, data: Data) -> None:
        """Looks at what an evaluation gave."""
        self._look(data, data if self.everything else self.names or self.estimator.network.get_loss_keys())

    def _look(self, data: Data, names: Iterable[str]) -> None:
        bad = [name for name in names if name in data and not _finite(data[name])]
        if bad:
            self.estimator.stop(f"not finite in mode {data.mode}: {', '.join(bad)}")


def _finite(value: Any) -> bool:
    array = as_numpy(value)
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())
