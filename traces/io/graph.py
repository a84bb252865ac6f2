"""Which op or trace reads what from whom: a mode's way from its data through pipeline and network to the traces."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.op import active


@dataclass
class Node:
    """A box of the graph. group: "data", "pipeline", "network" or "trace". sources: (place of a node, key) read."""

    name: str
    group: str
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    sources: list[tuple[int, str]] = field(default_factory=list)


def flow(estimator: Any, mode: str, ds_id: str = "") -> list[Node]:
    """The nodes of a mode (and one of its data sets) in the order in which they run."""
    nodes: list[Node] = []
    writers: dict[str, int] = {}

    def add(name: str, group: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        for key in inputs:
            if key not in writers:  # nobody here writes it: it is given, as in inference
                given = next((i for i, node in enumerate(nodes) if node.name == "given"), len(nodes))
                if given == len(nodes):
                    nodes.append(Node("given", "data"))
                nodes[given].outputs, writers[key] = [*nodes[given].outputs, key], given
        nodes.append(Node(name, group, inputs, outputs, [(writers[key], key) for key in inputs]))
        writers.update(dict.fromkeys(outputs, len(nodes) - 1))

    pipeline = estimator.pipeline
    if mode in pipeline.get_modes():
        add(type(pipeline.schedules[mode].data[ds_id]).__name__, "data", (), list(pipeline.summary(mode)[ds_id].keys))
    before, after = pipeline.ops_of(mode, ds_id)
    for op in before:
        add(title(op), "pipeline", op.inputs, op.outputs)
    if writers:
        everything = list(writers)
        size = pipeline.recipes[mode, ds_id].size if (mode, ds_id) in pipeline.recipes else 1
        add(f"Batch of {size}", "pipeline", everything, everything)
    for op in after:
        everything = list(writers)
        add(title(op), "pipeline", getattr(op, "inputs", everything), getattr(op, "outputs", everything))
    for op in estimator.network.ops:
        parts = [part for part in chosen(op) if active(part.mode, mode) and active(part.ds_id, ds_id)]
        if parts:
            reads, writes = (
                dict.fromkeys(k for part in parts for k in getattr(part, n)) for n in ("inputs", "outputs")
            )
            add(title(op), "network", list(reads), list(writes))
    for trace in estimator.told(mode, ds_id) if mode != "infer" else ():
        add(title(trace), "trace", trace.inputs, trace.outputs)
    return nodes


def chosen(op: Any) -> list[Any]:
    """The ops that a scheduled one can be, or the op itself."""
    scheduler = getattr(op, "scheduler", None)
    return [op] if scheduler is None else [own for own in scheduler.values if own is not None]


def title(op: Any) -> str:
    """A class' name, with those of the ops or models inside, and of a scheduled one by epoch; a function's own name."""
    if inspect.isroutine(op):
        return op.__name__
    scheduler = getattr(op, "scheduler", None)
    if scheduler is not None:
        names = ["none" if own is None else title(own) for own in scheduler.values]
        epochs = getattr(scheduler, "epochs", None)
        names = names if epochs is None else [f"{first}: {name}" for first, name in zip(epochs, names, strict=True)]
        return f"{type(scheduler).__name__}({', '.join(names)})"
    inside = getattr(op, "ops", None) or getattr(op, "models", {}).values()
    inner = dict.fromkeys(type(part).__name__ for part in inside if part is not None)
    return f"{type(op).__name__}({', '.join(inner)})" if inner else type(op).__name__
