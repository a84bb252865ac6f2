"""A script's training that goes on where a kill or a crash stopped it."""

from pathlib import Path
from typing import Any

from runtime.errors import UsageError
from traces.trace import Trace
from training import checkpoint
from training.frequency import in_steps


class RestoreWizard(Trace):
    """Saves the whole training into `directory` every so often and, when a script is started again, goes on from there.

    The state is that of a checkpoint: weights, optimizers, averages, position in the data, every trace's state, and the
    Summary's history. frequency: epochs as a number, or "2e", "500s". Two files are kept, the older as a fallback for a
    damaged one. List it first, so that the traces behind it begin with what was restored.
    """

    def __init__(self, directory: str | Path, frequency: int | str = 1):
        super().__init__(mode="train")
        self.folder, self.frequency = Path(directory), frequency
        self.steps: int | None = None

    def should_restore(self) -> bool:
        """Whether there is something to go on from."""
        return any(self.folder.glob("step_*.safetensors"))

    def on_begin(self, data: Any) -> None:
        """Reads the frequency; restores the newest whole file."""
        estimator = self.estimator
        if estimator.world.many:
            raise UsageError(f"RestoreWizard needs one process, got {estimator.world.size}; use resume=true.")
        every = f"{self.frequency}e" if isinstance(self.frequency, int) else self.frequency
        self.steps = in_steps(every, estimator.steps_per_epoch, "frequency")
        found = checkpoint.newest_whole(self.folder) if self.folder.is_dir() else None
        if found and found[2]["step"] > estimator.step:  # not one of this process's own second fit
            path, arrays, meta = found
            estimator.load(arrays, meta, str(path))
            estimator.summary.history[:] = meta["history"]
            print(f"RestoreWizard: going on from {path.name}, epoch {estimator.epoch}")

    def on_step_end(self) -> None:
        """Saves where a save is due; a full disk is reported, and what is there stays."""
        estimator = self.estimator
        if not self.steps or estimator.step % self.steps:
            return
        meta = {**estimator.state_dict(), "history": estimator.summary.history}
        try:
            checkpoint.save(self.folder / f"step_{estimator.step:08d}.safetensors", estimator.state_arrays(), meta)
        except OSError as error:
            print(f"warning: RestoreWizard could not save step {estimator.step} ({error}); older files are untouched.")
            return
        for old in sorted(self.folder.glob("step_*.safetensors"))[:-2]:
            old.unlink()
