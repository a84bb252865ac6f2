"""What a metric trace is: it gathers what a batch says, and makes one value of it at the end of the evaluation."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.errors import UsageError
from traces.trace import Trace
from training.data import Data, as_numpy

MODES = ("eval", "test")


class PerDSTrace(Trace):
    """A trace that also works data set by data set: on_ds_begin and on_ds_end around the batches of each."""


class Metric(PerDSTrace):
    """A value of all rows of an evaluation, read from two keys and logged as <mode>/<output_name>.

    per_ds: where there are several data sets, also each one's own, <mode>/<output_name>|<ds_id>. A subclass says what
    it keeps of a batch (`gather`) and what value that makes (`value`): so batches may have any sizes.
    """

    def __init__(self, true_key: str, pred_key: str, mode: str | Sequence[str] | None = MODES,
                 ds_id: str | Sequence[str] | None = None, output_name: str | Sequence[str] = "metric",
                 per_ds: bool = True):  # fmt: skip
        super().__init__((true_key, pred_key), output_name, mode, ds_id)
        self.true_key, self.pred_key = true_key, pred_key
        self.per_ds = per_ds and not any("|" in name for name in self.outputs)
        self.gathered: list[tuple[str, Any]] = []

    def gather(self, true: np.ndarray, pred: np.ndarray) -> Any:
        """What is kept of one batch."""
        raise NotImplementedError

    def value(self, gathered: list[Any]) -> Any:
        """The metric of everything gathered; a dictionary for several outputs."""
        raise NotImplementedError

    def on_epoch_begin(self, data: Data) -> None:
        """Forgets the evaluation before."""
        self.gathered = []

    def on_batch_end(self, data: Data) -> None:
        """Gathers one batch."""
        self.gathered.append((data.ds_id, self.gather(as_numpy(data[self.true_key]), as_numpy(data[self.pred_key]))))

    def on_ds_end(self, data: Data) -> None:
        """Writes the value of one data set."""
        if self.per_ds:
            self._write(data, [kept for ds_id, kept in self.gathered if ds_id == data.ds_id])

    def on_epoch_end(self, data: Data) -> None:
        """Writes the value of all."""
        self._write(data, [kept for _, kept in self.gathered])

    def _write(self, data: Data, gathered: list[Any]) -> None:
        if not gathered:
            raise UsageError(f"{type(self).__name__} needs at least one batch in mode {data.mode}, got none.")
        value = self.value(gathered)
        for name, number in (value if isinstance(value, dict) else {self.outputs[0]: value}).items():
            data.write_with_log(name, number)


def joined(gathered: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of arrays (B, ...) as one pair, rows in order."""
    first, second = zip(*gathered, strict=True)
    return np.concatenate(first), np.concatenate(second)


def labels(true: np.ndarray, pred: np.ndarray, from_logits: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Both as flat integer labels: the largest score's class, or whether the one score is above 1/2 (logits: 0).

    true: integers, or one-hot (..., C). pred: scores (..., C), one score (B,) or (..., 1), or labels (B,). Raises
    UsageError where the counts differ.
    """
    if has_classes(pred):
        found = pred.argmax(-1)
    else:
        found = pred > 0 if from_logits else np.round(pred)
    if true.size != found.size and has_classes(true):
        true = true.argmax(-1)
    if true.size != found.size:
        raise UsageError(f"a metric needs one label for each prediction, got shapes {true.shape} and {pred.shape}.")
    return true.reshape(-1).astype(np.int64), found.reshape(-1).astype(np.int64)


def classes_of(true: np.ndarray, rows: int) -> np.ndarray:
    """Integer labels (rows,) from integers (rows,), (rows, 1) or one-hot (rows, C)."""
    return (true.argmax(-1) if true.size != rows else true).reshape(rows).astype(np.int64)


def has_classes(array: np.ndarray) -> bool:
    """Whether the last axis is one of classes: (B, ..., C), C > 1."""
    return array.ndim > 1 and array.shape[-1] > 1
