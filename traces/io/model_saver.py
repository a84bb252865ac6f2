"""Traces that save weights: every so often, and the best."""

from pathlib import Path
from typing import Any, Literal

import mlx.nn as nn

from runtime.errors import UsageError
from traces.best import Best
from traces.trace import Trace
from training.build import load_model, save_model
from training.data import one_number
from training.forward import judged
from training.frequency import in_steps


class ModelSaver(Trace):
    """Saves a model's weights as <weights_name>_epoch_<n>.safetensors (_step_<n> within an epoch).

    frequency: epochs as a number, or "2e", "500s". max_to_keep: newest files kept, None or 0 for all. weights_name:
    None for the model's own. save_dir: None saves nothing.
    """

    def __init__(self, model: nn.Module, save_dir: str | Path | None, frequency: int | str = 1,
                 max_to_keep: int | None = None, weights_name: str | None = None):  # fmt: skip
        super().__init__(mode="train")
        if max_to_keep is not None and max_to_keep < 0:
            raise UsageError(f"max_to_keep must be 0 or more, got {max_to_keep}.")
        self.model, self.folder, self.frequency = model, Path(save_dir) if save_dir else None, frequency
        self.max_to_keep, self.weights_name = max_to_keep or 0, weights_name
        self.kept: list[str] = []
        self.steps: int | None = None

    def on_begin(self, data: Any) -> None:
        """Reads the frequency."""
        every = f"{self.frequency}e" if isinstance(self.frequency, int) else self.frequency
        self.steps = in_steps(every, self.estimator.steps_per_epoch, "frequency")
        self.weights_name = self.weights_name or self.estimator.network.name_of(self.model)

    def on_batch_end(self, data: Any) -> None:
        """Saves where a save is due."""
        estimator = self.estimator
        if not self.folder or not self.steps or estimator.step % self.steps:
            return
        whole = estimator.step % estimator.steps_per_epoch == 0
        place = f"epoch_{estimator.epoch}" if whole else f"step_{estimator.step}"
        path = self.folder / f"{self.weights_name}_{place}.safetensors"
        save_model(self.model, path)
        self.kept = [*(old for old in self.kept if old != path.name), path.name]
        while self.max_to_keep and len(self.kept) > self.max_to_keep:
            (self.folder / self.kept.pop(0)).unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """The files kept."""
        return {"kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the list of files back."""
        self.kept = list(state["kept"])


class BestModelSaver(Trace):
    """Saves the weights of the evaluation with the best metric as <model>_best_<metric>.safetensors.

    metric: None for the loss of the model's update. Weights are the judged ones, the averages where some are kept. Logs
    eval/since_best_<metric>, the evaluations since, and eval/min_<metric> (max_<metric>). load_best_final: the model
    ends with the best weights. Must stand behind the trace that makes the metric. save_dir: None saves nothing.
    """

    def __init__(self, model: nn.Module, save_dir: str | Path | None, metric: str | None = None,
                 save_best_mode: Literal["min", "max"] = "min", weights_name: str | None = None,
                 load_best_final: bool = False):  # fmt: skip
        super().__init__(mode="eval")
        self.model, self.folder, self.metric = model, Path(save_dir) if save_dir else None, metric or ""
        self.best, self.best_mode = Best(save_best_mode, argument="save_best_mode"), save_best_mode
        self.weights_name, self.load_best_final = weights_name, load_best_final
        if metric:
            self._name(metric)

    def _name(self, metric: str) -> None:
        self.metric = metric
        self.inputs, self.outputs = (metric,), (f"since_best_{metric}", f"{self.best_mode}_{metric}")

    def on_begin(self, data: Any) -> None:
        """Finds the metric where none is given."""
        if not self.metric:
            self._name(self.estimator.update_of(self.model).loss_name)
        model = self.estimator.network.name_of(self.model)
        self.weights_name = self.weights_name or f"{model}_best_{self.metric}".replace("/", "_").replace("|", "_")

    @property
    def path(self) -> Path | None:
        """Where the best weights lie."""
        return self.folder / f"{self.weights_name}.safetensors" if self.folder else None

    def on_epoch_end(self, data: Any) -> None:
        """Looks whether this evaluation is the best so far."""
        value = one_number(data, self.metric)
        if self.best.improved(value) and self.path:
            with judged(self.estimator.network):
                save_model(self.model, self.path)
        data.write_with_log(self.outputs[0], self.best.wait)
        data.write_with_log(self.outputs[1], self.best.value if self.best.found else value)

    def on_end(self, data: Any) -> None:
        """Gives the model its best weights."""
        if self.load_best_final and self.best.found and self.path and self.path.exists():
            load_model(self.model, self.path)

    def state_dict(self) -> dict[str, Any]:
        """The best value and how long it stands."""
        return self.best.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes both back."""
        self.best.load_state_dict(state)
