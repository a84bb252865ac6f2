"""A metric of single samples or of labels over the training, as charts."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from runtime.errors import UsageError
from runtime.panels import Chart
from traces.trace import Trace
from training.data import as_numpy


class LabelTracker(Trace):
    """Leaves a chart of a metric (B,) by label (B,) at the end, under "<metric>_by_<label>" or `outputs`.

    bounds: "std" for a band of one sample standard deviation, "range" from least to largest, None for none.
    label_mapping: {name: value}; other labels are left out.
    """

    def __init__(self, label: str, metric: str, label_mapping: Mapping[str, Any] | None = None,
                 bounds: Literal["std", "range"] | None = "std", mode: str | Sequence[str] | None = "eval",
                 ds_id: str | Sequence[str] | None = None, outputs: str | None = None):  # fmt: skip
        if bounds not in (None, "std", "range"):
            raise UsageError(f"bounds must be None, 'std' or 'range', got {bounds!r}.")
        super().__init__((label, metric), outputs or f"{metric}_by_{label}", mode, ds_id)
        self.label, self.metric, self.bounds = label, metric, bounds
        self.names = None if label_mapping is None else {value: name for name, value in label_mapping.items()}
        self.points: list[tuple[Any, float]] = []
        self.history: dict[str, list[list[float]]] = {}  # label -> [step, mean, low, high]

    def on_epoch_begin(self, data: Any) -> None:
        """Starts anew."""
        self.points = []

    def on_batch_end(self, data: Any) -> None:
        """Keeps the batch's values."""
        labels, values = (as_numpy(data[key]).reshape(-1).tolist() for key in (self.label, self.metric))
        self.points += zip(labels, values, strict=True)

    def on_epoch_end(self, data: Any) -> None:
        """Adds a point to every label's line."""
        for label in sorted({label for label, _ in self.points}):
            if self.names is None or label in self.names:
                own = np.array([value for other, value in self.points if other == label])
                half = own.std(ddof=1) if len(own) > 1 else 0.0
                low, high = (own.min(), own.max()) if self.bounds == "range" else (own.mean() - half, own.mean() + half)
                name = str(label if self.names is None else self.names[label])
                row = [self.estimator.step, float(own.mean()), float(low), float(high)]
                self.history.setdefault(name, []).append(row)

    def on_end(self, data: Any) -> None:
        """Leaves the chart."""
        columns = 4 if self.bounds else 2
        series = {name: tuple(zip(*rows, strict=True))[:columns] for name, rows in self.history.items()}
        data.write_without_log(self.outputs[0], Chart(self.outputs[0], series))

    def state_dict(self) -> dict[str, Any]:
        """The lines so far."""
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the lines back."""
        self.history = state["history"]


class InstanceTracker(LabelTracker):
    """Leaves a chart of a metric (B,) of single samples, by their ids (B,), under "<metric>_by_<index>" or `outputs`.

    Shown are the n_max_to_keep highest and n_min_to_keep lowest at the end, and the ids of list_to_keep.
    epoch_frequency: epochs between points.
    """

    def __init__(self, index: str, metric: str, n_max_to_keep: int = 5, n_min_to_keep: int = 5,
                 list_to_keep: Sequence[Any] = (), epoch_frequency: int = 1,
                 mode: str | Sequence[str] | None = "eval", ds_id: str | Sequence[str] | None = None,
                 outputs: str | None = None):  # fmt: skip
        if min(n_max_to_keep, n_min_to_keep) < 0 or epoch_frequency < 1:
            raise UsageError(
                "n_max_to_keep and n_min_to_keep must be 0 or more and epoch_frequency at least 1, got "
                f"{n_max_to_keep}, {n_min_to_keep} and {epoch_frequency}."
            )
        super().__init__(index, metric, None, None, mode, ds_id, outputs)
        self.most, self.least, self.frequency = n_max_to_keep, n_min_to_keep, epoch_frequency
        self.wanted = {str(one) for one in list_to_keep}

    def on_epoch_end(self, data: Any) -> None:
        """Adds a point to every sample's line, where one is due."""
        if self.estimator.epoch % self.frequency == 0:
            super().on_epoch_end(data)

    def on_end(self, data: Any) -> None:
        """Leaves the chart of the samples to keep."""
        ranked = sorted(self.history, key=lambda name: self.history[name][-1][1])
        kept = {*ranked[: self.least], *ranked[len(ranked) - self.most :], *self.wanted}
        lines = {name: tuple(zip(*self.history[name], strict=True))[:2] for name in ranked if name in kept}
        data.write_without_log(self.outputs[0], Chart(self.outputs[0], lines))
