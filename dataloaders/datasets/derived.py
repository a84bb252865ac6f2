"""Data sets that compute their samples: from a generator, or from another data set by ops."""

import inspect
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from dataloaders.datasets.summary import DatasetSummary, sample_summary
from dataloaders.ops.numpy_op import NumpyOp
from dataloaders.samples import passed, read
from runtime.errors import UsageError
from runtime.op import active


class GeneratorDataset:
    """`samples_per_epoch` samples an epoch, made one by one.

    generator: a function (index, rng) -> sample that draws random numbers from `rng` alone; then batches depend on
    seed and number only, and worker processes make them too. Or, as in FastEstimator, a generator, which is sent the
    index: it is asked in the order of training, goes on where it was, and can't be sent to other processes.
    """

    def __init__(self, generator: Callable[..., Any] | Generator, samples_per_epoch: int):
        if samples_per_epoch < 1:
            raise UsageError(f"samples_per_epoch must be at least 1, got {samples_per_epoch}.")
        if not (inspect.isgenerator(generator) or callable(generator)) or inspect.isgeneratorfunction(generator):
            raise UsageError(
                "GeneratorDataset needs a function (index, rng) -> sample or a generator that has been called, got "
                f"{generator!r}."
            )
        self.generator, self.samples_per_epoch = generator, samples_per_epoch
        first = next(generator) if isinstance(generator, Generator) else None  # it takes values only after its first
        self.keys = sample_summary(first) if isinstance(first, dict) else None

    def __len__(self) -> int:
        return self.samples_per_epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.sample(index, np.random.default_rng(index))

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """The sample of an index; UsageError where the generator has come to its end."""
        if not isinstance(self.generator, Generator):
            return self.generator(index, rng)
        try:
            return self.generator.send(index)
        except StopIteration as error:
            raise UsageError("the generator of a GeneratorDataset ended; needed: one that yields for ever.") from error

    def summary(self) -> DatasetSummary:
        """Of its first sample."""
        return DatasetSummary(len(self), sample_summary(self[0]) if callable(self.generator) else self.keys or {})


class OpDataset:
    """A data set whose samples have gone through NumpyOps, for ops that belong to the data and not to a pipeline.

    ops: those active in `mode` run, in their order. RemoveIf is refused: a data set has no other row to give.
    """

    def __init__(self, dataset: Any, ops: NumpyOp | Sequence[NumpyOp], mode: str = "train"):
        self.dataset, self.mode = dataset, mode
        given = [ops] if isinstance(ops, NumpyOp) else list(ops)
        self.ops = [op for op in given if active(op.mode, mode)]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.sample(index, np.random.default_rng(index))

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Row `index` after the ops, whose random numbers come from `rng`."""
        sample = read(self.dataset, index, rng)
        if passed(self.ops, sample, {"mode": self.mode, "epoch": 0, "ds_id": "", "rng": rng}) is not None:
            raise UsageError("an op of an OpDataset removed a sample; put RemoveIf into the Pipeline's ops.")
        return sample

    def summary(self) -> DatasetSummary:
        """Of its first sample."""
        return DatasetSummary(len(self), sample_summary(self[0]))
