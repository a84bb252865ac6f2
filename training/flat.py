"""A parameter group as one vector: its weights, optimizer slots and averages take one kernel each, not one a leaf.

On a GPU a launch costs about as much as moving a hundred thousand numbers; a UNet has 300 leaves. Only optimizers that
treat every number alike can work on the vector; their numbers are the same as leaf by leaf.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim

from runtime.op import Batch
from runtime.slots import slots
from training import flat_cuda
from training.flat_cuda import ALIGNMENT
from training.guard import guarded
from training.network import Network
from training.update import UpdateOp

ELEMENTWISE = (
    optim.SGD, optim.RMSprop, optim.Adagrad, optim.AdaDelta, optim.Adam, optim.AdamW, optim.Adamax, optim.Lion
)  # fmt: skip
PARAMETERS = "parameters"


class Vector:
    """The leaves that group `index` of an update trains, end to end.

    name: under which the update sees the vector as one leaf (label: with the model's name in front, as in paths).
    """

    def __init__(self, update: UpdateOp, index: int, prefix: str):
        self.update, self.index, self.name, self.label = update, index, f"flat{index}", f"{prefix}.flat{index}"
        leaves = {path: leaf for path, leaf in update.leaves().items() if update.owner[path] == index}
        self.own, self.paths = list(leaves), [f"{prefix}.{path}" for path in leaves]
        self.shapes = [leaf.shape for leaf in leaves.values()]
        self.sizes = [leaf.size for leaf in leaves.values()]
        places = {path: (container, key) for path, container, key in slots(update.model)}
        self.weights: list[tuple[Any, Any]] = [places[path] for path in leaves]

    def join(self, arrays: list[mx.array]) -> mx.array:
        """The vector (N,) of arrays of the leaves' shapes, zeros between them."""
        parts = []
        for array, size in zip(arrays, self.sizes, strict=True):
            parts.append(array.reshape(-1))
            if size % ALIGNMENT:
                parts.append(mx.zeros(-size % ALIGNMENT, array.dtype))
        return mx.concatenate(parts)

    def gather(self, gradients: list[mx.array]) -> mx.array:
        """`join` by one kernel where there is one for it."""
        return flat_cuda.join(gradients) if flat_cuda.takes(gradients) else self.join(gradients)

    def views(self, vector: mx.array) -> list[mx.array]:
        """The leaves of a vector (N,); nothing is copied."""
        found, start = [], 0
        for shape, size in zip(self.shapes, self.sizes, strict=True):
            found.append(vector[start : start + size].reshape(shape))
            start += size + -size % ALIGNMENT
        return found

    def places(self) -> dict[str, list[tuple[Any, Any]]]:
        """Where the state keeps the leaves, their slots and averages: by kind, (container, key) of every leaf."""
        state: Any = self.update.groups[self.index].optimizer.state
        found = {PARAMETERS: self.weights}
        for slot in state[self.own[0]]:
            found[f"slot.{slot}"] = [(state[path], slot) for path in self.own]
        averages = self.update.averages
        return found | {f"ema.{d}": [(averages.state[str(d)], path) for path in self.own] for d in averages.decays}

    def spread(self, held: Batch, fresh: Batch, window: mx.array) -> None:
        """Keeps new arrays of the vector where `window` is true, and shows them to the state as views."""
        # guarded() finds a leaf's slots and averages by their names' ends
        names = {key: f"models.{i}.{self.name}" if key == PARAMETERS else f"{key}.{self.name}"
                 for i, key in enumerate(fresh)}  # fmt: skip
        kept = guarded(window, {names[k]: a for k, a in fresh.items()}, {names[k]: a for k, a in held.items()})
        held.update({key: kept[name] for key, name in names.items()})
        for key, places in self.places().items():
            for (container, name), view in zip(places, self.views(held[key]), strict=True):
                container[name] = view

    @contextmanager
    def installed(self, arrays: Batch) -> Iterator[None]:
        """The update finds the vector as a leaf called `name`; on leaving, `arrays` holds what became of it."""
        state: Any = self.update.groups[self.index].optimizer.state
        averages = self.update.averages.state
        decays = [key.removeprefix("ema.") for key in arrays if key.startswith("ema.")]
        self.update.owner[self.name] = self.index
        state[self.name] = {key.removeprefix("slot."): a for key, a in arrays.items() if key.startswith("slot.")}
        for decay in decays:
            averages[decay][self.name] = arrays[f"ema.{decay}"]
        yield
        arrays |= {f"slot.{slot}": array for slot, array in state.pop(self.name).items()}
        arrays |= {f"ema.{decay}": averages[decay].pop(self.name) for decay in decays}
        del self.update.owner[self.name]


def elementwise(optimizer: optim.Optimizer) -> bool:
    """Whether an optimizer treats every number alike; one of our own says so by an attribute of that name."""
    return type(optimizer) in ELEMENTWISE or vars(type(optimizer)).get("elementwise", False)


def vectors(network: Network) -> list[Vector]:
    """One for every parameter group that can be flattened."""
    found = []
    times = Counter(network.first_paths.values())  # more than 1: the leaf is part of several models
    for update in network.updates:
        if update.phased or update.gradients is not None:
            continue
        once = all(times[network.path_of(update.model, path)] == 1 for path in update.owner)
        alone = once and all(other is update or other.model is not update.model for other in network.updates)
        for index, group in enumerate(update.groups):
            own = {path: leaf for path, leaf in update.leaves().items() if update.owner[path] == index}
            state: Any = group.optimizer.state
            like = all(
                isinstance(array, mx.array) and array.shape == leaf.shape
                for path, leaf in own.items() for array in state[path].values()
            )  # fmt: skip
            wide = all(leaf.dtype == mx.float32 for leaf in own.values())
            if own and alone and like and wide and elementwise(group.optimizer):
                found.append(Vector(update, index, network.name_of(update.model)))
    return found
