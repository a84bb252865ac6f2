"""Where the time of a step goes."""

import statistics
import time

import mlx.core as mx

from runtime.errors import UsageError
from traces.trace import Trace
from training.data import Data


class StepProfile(Trace):
    """Times every step to its end on the device, after the first `skip`; prints and logs medians at the end.

    Waiting for each step takes away the overlap of a normal run, so steps/s here are a lower bound.
    """

    def __init__(self, skip: int = 10):
        super().__init__(mode="train")
        if skip < 0:
            raise UsageError(f"skip must be 0 or more, got {skip}.")
        self.skip, self.times, self.began = skip, [], 0.0

    def on_batch_begin(self, data: Data) -> None:
        """Starts the clock with the device idle."""
        mx.synchronize()
        self.began = time.perf_counter()

    def on_batch_end(self, data: Data) -> None:
        """Waits for the step and stops the clock."""
        mx.eval(self.estimator.train_step.state, dict(data))
        mx.synchronize()
        self.times.append(1e3 * (time.perf_counter() - self.began))

    def on_end(self, data: Data) -> None:
        """Prints the table."""
        kept = self.times[self.skip :]
        if not kept:
            raise UsageError(f"nothing to profile: {len(self.times)} steps done, the first {self.skip} are skipped.")
        values = {
            "profile/first_step_ms": self.times[0],
            "profile/step_ms_median": statistics.median(kept),
            "profile/step_ms_worst": max(kept),
            "profile/batch_production_ms": 1e3 / self.estimator.pipeline.benchmark("train", 50),
            "profile/peak_memory_mb": mx.get_peak_memory() / 2**20,
        }
        self.estimator.log(**values)
        print("\n".join(f"{name.removeprefix('profile/'):<24}{value:>12.3f}" for name, value in values.items()))
