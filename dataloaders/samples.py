"""Samples to batches: rows read, host ops applied, removed samples redrawn, arrays stacked or padded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.ops.numpy_op import FilteredData, NumpyOp
from dataloaders.source import Source
from runtime.errors import UsageError
from runtime.op import NumpyBatch

Sample = dict[str, Any]
REDRAWS = 1000  # rows that RemoveIf may refuse one after another


def read(data: Any, row: int, rng: np.random.Generator) -> Sample:
    """One sample of a data set as a new dictionary; sets that draw at random (`sample(row, rng)`) draw from `rng`."""
    if isinstance(data, Source):
        return {key: value[0] for key, value in data.take(np.array([row]), rng).items()}
    try:
        found = data.sample(int(row), rng) if hasattr(data, "sample") else data[int(row)]
    except Exception as error:
        error.add_note(f"in sample {row} of {type(data).__name__}")
        raise
    return as_sample(found, data, row)


def as_sample(found: Any, data: Any, row: int) -> Sample:
    """What a data set gave for a row, as a new dictionary; UsageError where it is none."""
    if not isinstance(found, dict):
        raise UsageError(
            f"{type(data).__name__}[{row}] is a {type(found).__name__}; needed: a dictionary of one sample's arrays "
            "(of whole columns NumpyDataset makes such samples)."
        )
    return dict(found)


def order_of(data: Any, rng: np.random.Generator | None) -> np.ndarray:
    """The rows (N,) of one pass over a data set: its own `order(rng)`, else all of them, shuffled by an `rng`."""
    if hasattr(data, "order"):
        return data.order(rng)
    return np.arange(len(data)) if rng is None else rng.permutation(len(data))


def applied(op: NumpyOp, data: dict[str, Any], state: dict[str, Any], batched: bool = False) -> Any:
    """Runs an op and writes its outputs into `data`; returns FilteredData where the op asks for that."""
    if missing := [name for name in op.inputs if name not in data]:
        raise UsageError(
            f"{type(op).__name__} misses {', '.join(missing)} in mode {state['mode']}; the data has "
            f"{', '.join(sorted(data))}."
        )
    picked = [data[name] for name in op.inputs]
    found = (op.forward_batch if batched else op.forward)(picked if op.in_list else picked[0], state)
    if isinstance(found, FilteredData):
        return found
    for name, value in op.named(found).items():
        if value is None:
            data.pop(name, None)
        else:
            data[name] = value
    return None


def passed(ops: Sequence[NumpyOp], sample: Sample, state: dict[str, Any], batched: bool = False) -> FilteredData | None:
    """Runs a sample, or a batch, through the ops, in place; FilteredData as soon as one removes it."""
    for op in ops:
        if (found := applied(op, sample, state, batched)) is not None:
            return found
    return None


def finished(
    data: Any, samples: list[Sample], ops: Sequence[NumpyOp], state: dict[str, Any]
) -> tuple[list[Sample], np.ndarray]:
    """The samples after the ops, and a mask (n,) float32 that is 0 where one was removed without replacement."""
    if not ops:
        return samples, np.ones(len(samples), np.float32)
    kept: list[Sample | None] = []
    for sample in samples:
        removed = passed(ops, sample, state)
        if removed is None:
            kept.append(sample)
        else:
            kept.append(redrawn(data, ops, state) if removed.replacement else None)
    mask = np.array([sample is not None for sample in kept], np.float32)
    filler = next((sample for sample in kept if sample is not None), None)
    if filler is None:
        filler = redrawn(data, ops, state)
    return [filler if sample is None else sample for sample in kept], mask


def redrawn(data: Any, ops: Sequence[NumpyOp], state: dict[str, Any]) -> Sample:
    """A sample that passes the ops, of a random row of the data set."""
    for _ in range(REDRAWS):
        row = data.random_row(state["rng"]) if hasattr(data, "random_row") else state["rng"].integers(len(data))
        sample = read(data, row, state["rng"])
        if passed(ops, sample, state) is None:
            return sample
    raise UsageError(f"RemoveIf took out {REDRAWS} samples in a row, of {len(data)}; its condition must leave some.")


def stacked(samples: Sequence[Sample], pad_value: float | None = None) -> NumpyBatch:
    """Samples as one batch (n, ...); float64 becomes float32. UsageError where keys, shapes or types do not agree."""
    keys = samples[0].keys()
    for sample in samples:
        if sample.keys() != keys:
            raise UsageError(
                f"the samples of a batch must have the same keys, got {', '.join(keys)} and {', '.join(sample)}."
            )
    return {key: column(key, [sample[key] for sample in samples], pad_value) for key in keys}


def column(key: str, values: Sequence[Any], pad_value: float | None) -> np.ndarray:
    """The values of one key, stacked or, with a `pad_value`, filled up to the largest shape."""
    arrays = [np.asarray(str(value) if isinstance(value, Path) else value) for value in values]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        if pad_value is None or len({len(shape) for shape in shapes}) > 1:
            few = ", ".join(map(str, sorted(shapes)[:3]))
            raise UsageError(
                f"{key!r} has samples of different shapes ({few}{', ...' if len(shapes) > 3 else ''}); resize them, "
                "or give Batch(pad_value=...), which needs as many axes in all."
            )
        full = np.max([array.shape for array in arrays], axis=0)
        arrays = [
            np.pad(array, [(0, int(most - n)) for most, n in zip(full, array.shape, strict=True)],
                   constant_values=pad_value)
            for array in arrays
        ]  # fmt: skip
    batch = np.stack(arrays)
    if batch.dtype == object:
        raise UsageError(
            f"{key!r} holds a {type(values[0]).__name__}; needed: numbers, arrays or strings (see Delete)."
        )
    return batch.astype(np.float32) if batch.dtype == np.float64 else batch
