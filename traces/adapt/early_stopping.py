"""Stopping when a value gets no better."""

from pathlib import Path
from typing import Any

import mlx.core as mx

from runtime.slots import snapshot, write
from traces.best import Best
from traces.trace import Trace
from training import checkpoint
from training.data import Data, one_number

FILE = "best_weights.safetensors"


class EarlyStopping(Trace):
    """Stops the training after `patience` evaluations in a row without an improvement of `monitor`.

    monitor: a loss or what an earlier trace wrote, of the same epoch. compare: "min" or "max". min_delta: smaller
    changes are none. baseline: to be beaten from the start. restore_best_weights: at the end all models and averages
    are those of the best evaluation; for a resumed run they are kept as a file in `save_dir` (default: the run's
    folder). Raises UsageError for another compare, and MissingKey where no earlier trace writes `monitor`.
    """

    def __init__(self, monitor: str = "loss", min_delta: float = 0.0, patience: int = 0, compare: str = "min",
                 baseline: float | None = None, mode: str = "eval", restore_best_weights: bool = False,
                 save_dir: str | Path | None = None):  # fmt: skip
        super().__init__(inputs=monitor, mode=mode)
        self.monitor, self.patience, self.restore_best_weights = monitor, patience, restore_best_weights
        self.best, self.best_epoch, self.save_dir = Best(compare, min_delta, baseline), 0, save_dir
        self.weights: dict[str, mx.array] = {}

    def on_epoch_end(self, data: Data) -> None:
        """Compares the value of this evaluation."""
        estimator = self.estimator
        if self.best.improved(one_number(data, self.monitor)):
            self.best_epoch = estimator.epoch
            if self.restore_best_weights:
                self._keep()
            return
        if self.best.wait >= self.patience:
            estimator.stop(
                f"{self.monitor} has not improved for {self.best.wait} evaluations; its best was "
                f"{self.best.value:g} at epoch {self.best_epoch}"
            )
            self._restore()
        elif estimator.step == estimator.total_steps:
            self._restore()

    def on_end(self, data: Data) -> None:
        """Restores where the training ended between evaluations."""
        if self.best.wait or self.estimator.epoch != self.best_epoch:
            self._restore()

    def _arrays(self) -> dict[str, Any]:
        averages = {str(i): op.averages.state for i, op in enumerate(self.estimator.network.updates)}
        return {"models": self.estimator.network.models, "averages": averages}

    def _keep(self) -> None:
        self.weights = snapshot(self._arrays())
        if (path := self._path()) is not None:
            checkpoint.save(path, self.weights, {"step": self.estimator.step})

    def _restore(self) -> None:
        path = self._path()
        if self.restore_best_weights and not self.weights and path is not None and path.is_file():
            self.weights, _ = checkpoint.load(path)
        write(self._arrays(), self.weights)

    def _path(self) -> Path | None:
        workspace = self.estimator.workspace
        folder = self.save_dir or (workspace.folder if workspace is not None else None)
        return None if folder is None else Path(folder) / FILE

    def state_dict(self) -> dict[str, Any]:
        """The best value, the wait and the epoch; the weights are in a file."""
        return {**self.best.state_dict(), "best_epoch": self.best_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.best.load_state_dict(state)
        self.best_epoch = state["best_epoch"]
