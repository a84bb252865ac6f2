"""What a report holds of an estimator, in words: settings, data sets, models and the graph of every mode."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from runtime.description import settings
from runtime.op import MODES
from runtime.trees import count_parameters, flatten
from traces.io.graph import flow

Keys = dict[str, tuple[str, str, str]]  # type, shape and number of different values of a key


def objects_of(estimator: Any, others: Sequence[Any] = ()) -> dict[str, list[tuple[str, dict[str, str]]]]:
    """Class and settings of estimator, pipeline, ops, traces and `others`, by section."""
    sections: dict[str, Sequence[Any]] = {
        "Estimator": [estimator], "Pipeline": [estimator.pipeline], "Pipeline's ops": estimator.pipeline.ops,
        "Network's ops": estimator.network.ops, "Traces": estimator.traces, "Other objects": others,
    }  # fmt: skip
    return {
        name: [(type(own).__name__, settings(own)) for own in objects] for name, objects in sections.items() if objects
    }


def graphs_of(estimator: Any) -> dict[str, list]:
    """The graph of every mode that has data, and of inference; one for each data set where a mode has several."""
    found = {}
    for mode in MODES:
        names = estimator.pipeline.get_ds_ids(mode) or ([""] if mode == "infer" else [])
        found |= {f"{mode}, {ds_id}" if ds_id else mode: flow(estimator, mode, ds_id) for ds_id in names}
    return found


def data_of(pipeline: Any) -> dict[str, list[tuple[str, str, Keys]]]:
    """Name, size and keys of every data set, by mode."""
    found: dict[str, list[tuple[str, str, Keys]]] = {}
    for mode in (mode for mode in MODES if mode in pipeline.get_modes()):
        found[mode] = []
        for ds_id, summary in pipeline.summary(mode).items():
            kind = type(pipeline.schedules[mode].data[ds_id]).__name__
            size = f"{summary.num_instances:,} samples"
            if summary.num_classes:
                size += f", {summary.num_classes} classes {summary.class_key_mapping or ''}".rstrip()
            keys = {
                key: (own.dtype, str(own.shape), str(own.num_unique_values or "")) for key, own in summary.keys.items()
            }
            found[mode].append((f"{ds_id}: {kind}" if ds_id else kind, size, keys))
    return found


def models_of(estimator: Any) -> list[tuple[str, str, list[tuple[str, ...]]]]:
    """Name; class, size and optimizers; and path, shape, type, size and whether it is trained of every array."""
    found = []
    for name, model in estimator.network.models.items():
        updates = [update for update in estimator.network.updates if update.model is model]
        trained = {path for update in updates for path in update.owner}
        words = [f"{type(model).__name__} of {count_parameters(model):,} numbers",
                 f"{count_parameters(model, True):,} of them trainable"]  # fmt: skip
        for update in updates:
            kinds = [f"{type(g.optimizer).__name__} at {g.rate(mx.array(0)).item():.6g}" for g in update.groups]
            words.append(f"{', '.join(kinds)} lowers {update.loss_name}")
        arrays = []
        for path, leaf in flatten(model.parameters()).items():
            kind, moved = str(leaf.dtype).removeprefix("mlx.core."), "yes" if path in trained else "no"
            arrays.append((path, str(tuple(leaf.shape)), kind, f"{leaf.size:,}", moved))
        found.append((name, "; ".join(words), arrays))
    return found
