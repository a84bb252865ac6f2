"""Which op or trace reads what from whom: a mode's way from its data through pipeline and network to the traces."""

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
        if active(op.mode, mode) and active(op.ds_id, ds_id):
            add(title(op), "network", op.inputs, op.outputs)
    for trace in estimator.traces if mode != "infer" else ():
        if active(trace.mode, mode) and active(trace.ds_id, ds_id):
            add(title(trace), "trace", trace.inputs, trace.outputs)
    return nodes


def title(op: Any) -> str:
    """A class' name, with those of the ops or models inside."""
    inner = [type(part).__name__ for part in getattr(op, "ops", None) or getattr(op, "values", None) or ()]
    scheduler = getattr(op, "scheduler", None)
    if scheduler is not None:
        inner = [type(part).__name__ for part in scheduler.values]
    elif not inner:
        inner = [type(model).__name__ for model in getattr(op, "models", {}).values()]
    name = type(op).__name__ if scheduler is None else type(scheduler).__name__
    return f"{name}({', '.join(dict.fromkeys(inner))})" if inner else name
