"""Ops on the host: NumPy arrays of one sample, or of a batch after `Batch`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import UsageError
from runtime.op import Context, TensorOp

Names = str | Sequence[str] | None


class NumpyOp(TensorOp):
    """An op of the pipeline: `forward(data, state)` takes and returns NumPy arrays, with TensorOp's rules for names.

    data: the array of the one input, or a list where `inputs` is a list. Before `Batch` these belong to one sample;
    after it they are stacked and `forward_batch` is called, which is `forward` unless a subclass says otherwise.
    state: {"mode": str, "epoch": int, "ds_id": str, "rng": np.random.Generator}; all random numbers come from "rng".
    `forward` must not write into its input: it may be the data set's own array. masks: whether it may return
    FilteredData(replacement=False); training batches then have "mask".
    """

    masks: bool = False

    def __call__(self, data: dict[str, Any], ctx: Any) -> dict[str, Any]:
        """The outputs by name, from one sample's values and the state; None for a key to take out.

        UsageError in a network.
        """
        if isinstance(ctx, Context):
            raise UsageError(f"{type(self).__name__} is a NumpyOp, which belongs to a Pipeline, not to a Network.")
        return super().__call__(data, ctx)

    def forward(self, data: Any, state: Any) -> Any:
        """The input itself."""
        return data

    def forward_batch(self, data: Any, state: Any) -> Any:
        """What is called after `Batch`, with arrays (B, ...)."""
        return self.forward(data, state)


@dataclass(frozen=True)
class FilteredData:
    """What `forward` returns to take a sample out; replacement: whether another row is drawn in its place."""

    replacement: bool = True


class Batch(NumpyOp):
    """Where samples become batches: ops before it see one sample, ops after it stacked arrays (B, ...).

    batch_size: overrides the pipeline's. drop_last: evaluation drops its short last batch (training always does).
    pad_value: samples of different shapes are filled up with it at their ends; None: different shapes are refused.
    """

    def __init__(
        self,
        batch_size: int | None = None,
        drop_last: bool = False,
        pad_value: float | None = None,
        mode: Names = None,
        ds_id: Names = None,
    ):
        super().__init__(mode=mode, ds_id=ds_id)
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"Batch: batch_size must be at least 1, got {batch_size}.")
        self.batch_size, self.drop_last, self.pad_value = batch_size, drop_last, pad_value


class DynamicBatch(Batch):
    """`Batch` that fills up samples of different shapes with `pad_value`, to the largest of each batch."""

    def __init__(
        self,
        batch_size: int | None = None,
        drop_last: bool = False,
        pad_value: float = 0,
        mode: Names = None,
        ds_id: Names = None,
    ):
        super().__init__(batch_size, drop_last, pad_value, mode, ds_id)


class Delete(NumpyOp):
    """Takes `keys` out of the data."""

    def __init__(self, keys: str | Sequence[str], mode: Names = None, ds_id: Names = None):
        super().__init__(keys, None, mode, ds_id)

    def named(self, found: Any) -> dict[str, Any]:
        """None for every key, which takes it out."""
        return dict.fromkeys(self.inputs)


class RemoveIf(NumpyOp):
    """Takes out a sample where `fn(*inputs)` is true; must stand before `Batch`.

    replacement: a row drawn at random (from the batch's own generator, so a function of seed and batch) takes its
    place, in every mode. False: the row stays as a filler whose "mask" is 0, in training and in evaluation, so that
    the epoch keeps its steps and shapes; losses that honour "mask" leave it out.
    """

    def __init__(
        self,
        fn: Callable[..., bool],
        inputs: Names = None,
        replacement: bool = True,
        mode: Names = None,
        ds_id: Names = None,
    ):
        super().__init__(inputs, None, mode, ds_id)
        self.fn, self.replacement, self.masks = fn, replacement, not replacement

    def forward(self, data: Any, state: Any) -> FilteredData | None:
        """FilteredData where the sample has to go."""
        gone = self.fn(*data) if self.in_list else self.fn(data)
        return FilteredData(self.replacement) if gone else None
