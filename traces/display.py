"""Traces for the eyes."""

import sys
from typing import cast

from tqdm import tqdm

from traces.trace import Trace
from training.data import Data


class Progress(Trace):
    """A bar over all steps with loss, steps/s and time left, on standard error.

    refresh: seconds between drawings on a terminal; elsewhere (a log file) a line every `refresh_file` seconds.
    """

    def __init__(self, refresh: float = 0.2, refresh_file: float = 30.0, quiet: bool = False):
        super().__init__(mode="train")
        self.refresh, self.quiet = refresh if sys.stderr.isatty() else refresh_file, quiet
        self.bar: tqdm | None = None

    def on_begin(self, data: Data) -> None:
        """Opens the bar at the step reached."""
        estimator = self.estimator
        self.bar = tqdm(
            total=estimator.total_steps, initial=estimator.step, unit="step", mininterval=self.refresh, file=sys.stderr,
            dynamic_ncols=True, disable=self.quiet, smoothing=0.05,
        )  # fmt: skip

    def on_batch_end(self, data: Data) -> None:
        """Moves the bar; a loss is read only when the bar is drawn anew."""
        if self.bar is None or not self.bar.update():
            return
        losses = {name: f"{data[name].item():.4f}" for name in self.estimator.train_step.losses if name in data}
        skipped = cast(int, data["skipped"].item())
        self.bar.set_postfix(losses | ({"skipped": skipped} if skipped else {}), refresh=False)

    def on_close(self) -> None:
        """Closes the bar."""
        if self.bar is not None:
            self.bar.close()
