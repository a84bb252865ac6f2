"""Fully sharded data parallel: of the weights of a model's repeated blocks every process keeps its share of rows.

A block's weights are gathered when it is called and its gradients are summed and shared out in the backward pass, so
that masters, optimizer slots and averages of them take 1 / size of the memory (MLX's nn.fully_shard). Leaves outside of
blocks are whole in every process, as in data parallel training.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.distributed import FullyShardedModule
from mlx.utils import tree_flatten

from runtime.errors import UsageError
from runtime.op import Batch
from runtime.world import World
from training.flat import elementwise
from training.network import Network

WRAPPED = "module."  # what FullyShardedModule puts before the names of a block's leaves


def shard(model: nn.Module, world: World) -> int:
    """Wraps every block of a model's lists whose leaves divide by the number of processes; how many it wrapped.

    To be called before an optimizer is made. Raises UsageError over a backend that can't, and where nothing divides.
    """
    if not world.many:
        return 0
    if world.backend not in ("nccl", "jaccl"):
        raise UsageError(
            f"distributed.strategy=fsdp needs the backend nccl or jaccl, got {world.backend}; use strategy=data."
        )
    count = _wrap(model, world)
    if not count:
        raise UsageError(
            f"distributed.strategy=fsdp needs a model with a list of blocks whose leaves' first axes divide by "
            f"{world.size}; this {type(model).__name__} has none: use strategy=data."
        )
    return count


def _wrap(module: nn.Module, world: World) -> int:
    count = 0
    for child in [*module.values()]:  # its own lists, of which children() would give copies
        for place, own in enumerate(child if isinstance(child, list) else [child]):
            if not isinstance(own, nn.Module):
                continue
            if isinstance(child, list) and _divides(own, world.size):
                child[place] = nn.fully_shard(own, group=world.group)
                count += 1
            else:
                count += _wrap(own, world)
    return count


def _divides(module: nn.Module, size: int) -> bool:
    """Whether all leaves divide and are trained: what a forward pass makes of gathered statistics would be lost."""
    leaves: list[Any] = [leaf for _, leaf in tree_flatten(module.parameters())]
    trained = len(tree_flatten(module.trainable_parameters())) == len(leaves)
    return bool(leaves) and trained and all(leaf.ndim and leaf.shape[0] % size == 0 for leaf in leaves)


def check_sharded(network: Network, evaluated: bool) -> None:
    """Raises UsageError for what shards (any shape) can't serve: optimizers that mix numbers, evaluations."""
    if evaluated:
        raise UsageError(
            "distributed.strategy=fsdp evaluates nothing while weights are sharded; give eval_every=null "
            "~traces.evaluation, and evaluate the checkpoint afterwards with eval_checkpoint=..."
        )
    for group in (group for update in network.updates for groups in update.optimized for group in groups):
        if not elementwise(group.optimizer):
            raise UsageError(
                f"distributed.strategy=fsdp needs an optimizer that treats every number alike, such as AdamW, got "
                f"{type(group.optimizer).__name__}; use strategy=data."
            )


def sharded_prefixes(models: dict[str, nn.Module]) -> tuple[str, ...]:
    """What the paths of sharded leaves begin with, model name left out."""
    return tuple(
        f"{path}.{WRAPPED}"
        for model in models.values()
        for path, module in model.named_modules()
        if isinstance(module, FullyShardedModule)
    )


class Shards:
    """Which of a network's arrays are sharded, their norm, and whole arrays for a checkpoint and back."""

    def __init__(self, models: dict[str, nn.Module], world: World):
        self.world, self.prefixes = world, sharded_prefixes(models)

    def __contains__(self, path: object) -> bool:
        return any(f".{prefix}" in f".{path}" for prefix in self.prefixes)

    def norm(self, gradients: Batch) -> mx.array:
        """The Euclidean norm over all leaves, all shards of them, 0-d float32."""
        sums = [mx.array(0.0), mx.array(0.0)]
        for path, g in gradients.items():
            sums[path in self] = sums[path in self] + g.astype(mx.float32).square().sum()
        return mx.sqrt(sums[0] + (mx.distributed.all_sum(sums[1], group=self.world.group) if self.prefixes else 0.0))

    def name(self, path: str) -> str:
        """The path in a model that is not sharded."""
        for prefix in self.prefixes:
            at = f".{path}".find(f".{prefix}")
            if at >= 0:
                return path[:at] + prefix.removesuffix(WRAPPED) + path[at + len(prefix) :]
        return path

    def whole(self, arrays: Batch) -> Batch:
        """Arrays as a model that is not sharded would have them; all processes must ask."""
        return {self.name(p): self.world.gathered(a) if p in self else a for p, a in arrays.items()}

    def own(self, arrays: Batch, like: Batch) -> Batch:
        """This process's rows of whole arrays by the paths of `like`; arrays of unknown names (any shape) stay."""
        found, known = {}, {self.name(path): path for path in like}
        for name, whole in arrays.items():
            path = known.get(name, name)
            rows = like[path].shape[0] if path in like and path in self else None
            found[path] = whole if rows is None else whole[self.world.rank * rows : (self.world.rank + 1) * rows]
        return found
