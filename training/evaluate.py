"""One pass over the data of a mode, data set by data set: losses averaged over rows, traces told."""

from itertools import islice
from typing import Any

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError
from runtime.seed import step_key
from runtime.upload import to_device
from training.data import real_rows
from training.forward import judged_arrays

EVALUATION = 1 << 20  # stands in the place of a rank, so that evaluation draws share nothing with training


class Means:
    """Means over rows by name; a value is one number for a batch, or one a row."""

    def __init__(self):
        self.sums: dict[str, float] = {}
        self.rows: dict[str, float] = {}  # each name's own: not every data set needs to have every loss

    def add(self, name: str, value: mx.array, mask: np.ndarray) -> None:
        """Takes in a batch's value, 0-d or (B, ...), whose rows count by their means, by the real rows of mask (B,)."""
        value = mx.array(value)
        if value.ndim and len(value) != len(mask):
            raise UsageError(f"{name!r} has shape {value.shape} in an evaluation, which logs its mean; needed: one "
                             f"number, or rows, {len(mask)} of them.")  # fmt: skip
        value = value.reshape(len(value), -1).mean(axis=1) if value.ndim > 1 else value
        count = float(mask.sum())
        total = float((value * mask).sum()) if value.ndim else float(value) * count
        self.sums[name] = self.sums.get(name, 0.0) + total
        self.rows[name] = self.rows.get(name, 0.0) + count

    def values(self) -> dict[str, float]:
        """The means so far."""
        return {name: total / self.rows[name] for name, total in self.sums.items()}


def evaluate(estimator: Any, mode: str, decay: float | None = None) -> dict[str, float]:
    """Evaluates with the EMA weights (or the plain ones), logs and returns the means of losses, metrics and monitors.

    "<mode>/<name>" counts all rows; where data sets have names, "<mode>/<name>|<ds_id>" those of one, and
    on_ds_begin and on_ds_end are told around its batches. What traces write in on_ds_end is seen as "<key>|<ds_id>" in
    on_epoch_end. A per-batch mean counts by the batch's real rows.
    """
    pipeline, network = estimator.pipeline, estimator.network
    arrays = judged_arrays(network, decay)
    network.phases(max(estimator.step - 1, 0))  # scheduled ops are those of the epoch that is evaluated
    names = means_of(estimator)
    limit = estimator.eval_steps_per_epoch if mode == "eval" else None
    overall, ends, found, index = Means(), {}, {}, 0
    estimator.tell("on_epoch_begin", mode)
    for ds_id in pipeline.get_ds_ids(mode):
        own, wanted = Means(), estimator.wanted(mode, ds_id)
        if ds_id:
            estimator.tell("on_ds_begin", mode, ds_id=ds_id)
        batches = pipeline.batches(mode, ds_id=ds_id)
        for batch in islice(batches, limit):
            estimator.tell("on_batch_begin", mode, ds_id=ds_id)
            key = step_key(estimator.seed, index, 0, EVALUATION)
            data = estimator.forward[mode](arrays, to_device(batch), key, wanted, ds_id)
            mx.eval(data)
            for name in names:
                if name in data:
                    for means in (own, overall):
                        means.add(name, data[name], batch["mask"])
            strings = {name: batch[name] for name in wanted if name in batch and name not in data}
            estimator.tell("on_batch_end", mode, real_rows({**data, **strings}, batch["mask"]), ds_id)
            index += 1
        batches.close()
        if ds_id:
            losses = own.values()
            found |= {f"{mode}/{name}|{ds_id}": value for name, value in losses.items()}
            estimator.log(**{f"{mode}/{name}|{ds_id}": value for name, value in losses.items()})
            written = estimator.tell("on_ds_end", mode, losses, ds_id).written
            ends |= {f"{name}|{ds_id}": value for name, value in {**losses, **written}.items()}
    losses = overall.values()
    found |= {f"{mode}/{name}": value for name, value in losses.items()}
    estimator.log(**{f"{mode}/{name}": value for name, value in losses.items()})
    estimator.tell("on_epoch_end", mode, {**ends, **losses})
    return found


def means_of(estimator: Any) -> tuple[str, ...]:
    """The keys whose means an evaluation logs: losses, the ops' metrics, monitored keys."""
    network = estimator.network
    return tuple(dict.fromkeys([*network.get_loss_keys(), *network.metrics, *estimator.monitor_names]))
