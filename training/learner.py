"""What a config trains: its models by name, the network over them and the objective, if it has one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from omegaconf import DictConfig

from runtime.errors import UsageError, closest
from runtime.instantiate import build
from runtime.op import Objective, ObjectiveOp, Op
from runtime.scheduler import Scheduler
from runtime.world import ALONE, World
from training.build import attach
from training.network import Network
from training.sharding import shard

KEYS = ("models", "ops", "metrics")  # of a config's `network`


@dataclass
class Learner:
    """Models by name, the network that trains them, the traces that measure it and the objective.

    objective: that of the network's first ObjectiveOp; where it has none an `Objective` that has no samples.
    """

    models: dict[str, nn.Module]
    network: Network
    metrics: dict[str, Any]
    objective: Objective

    @property
    def model(self) -> nn.Module:
        """The first model."""
        return next(iter(self.models.values()))

    @property
    def trains(self) -> str:
        """What lowers what, in a word or two: the objective's name, or the losses."""
        kind = type(self.objective)
        return "losses " + ", ".join(self.network.get_loss_keys()) if kind is Objective else kind.__name__


def learner(config: DictConfig, world: World = ALONE) -> Learner:
    """Builds models, ops and metrics; without `network` one model trained by `loss` and `optimizer`.

    In a network models stand by their names: the one of the group `model` is "model", beside those of
    `network.models`. Initial weights come from MLX's global random state, in that order. world: with the strategy fsdp,
    the processes that share the models' blocks out. Raises UsageError for what does not fit together.
    """
    plugins, node = tuple(config.plugins), config.get("network")
    unknown = [str(key) for key in node or () if key not in KEYS]
    if unknown:
        raise UsageError(f"network has no key {unknown[0]!r}; nearest: {closest(unknown[0], list(KEYS))}.")
    nodes = {"model": config.model, **((node or {}).get("models") or {})}
    models = {name: build(n, plugins=plugins) for name, n in targets(nodes).items()}
    if not models:
        raise UsageError("there is no model; needed: model=NAME, or network.models with one at least.")
    for name, model in models.items():
        if not isinstance(model, nn.Module):
            raise UsageError(f"{name} must be an mlx.nn.Module, got {type(model).__name__}.")
        attach(model, None, name)
        if world.many and config.distributed.strategy == "fsdp":
            shard(model, world)
    if node is None:
        for group in ("loss", "optimizer"):
            if config[group] is None:
                raise UsageError(f"{group} is null; needed: {group}=NAME, or network=NAME with ops that train.")
        model = next(iter(models.values()))
        ops = [ObjectiveOp(model, build(config.loss, plugins=plugins)),
               build(config.optimizer, plugins=plugins, model=model)]  # fmt: skip
    else:
        ops = [build(n, plugins=plugins, models=models) for n in members(node.get("ops")).values()]
    for op in ops:
        if not isinstance(op, Op | Scheduler):
            raise UsageError(f"network.ops needs ops, got {op!r}; has it a _target_?")
    network = Network(ops)
    used = [id(model) for model in network.models.values()]
    for name, model in models.items():
        if id(model) not in used:
            raise UsageError(f"no op of network uses the model {name!r}; name it in one, or take it out (model=null).")
    objectives = [op for op in network.ops if isinstance(op, ObjectiveOp)]
    if not objectives and config.loss is not None:
        raise UsageError("network has losses of its own among its ops; take loss=... out.")
    for op in objectives:
        op.objective.check(op.models[op.name])
    mx.eval(*(model.parameters() for model in models.values()))
    metrics = {n: build(m, plugins=plugins, models=models) for n, m in targets((node or {}).get("metrics")).items()}
    return Learner(models, network, metrics, objectives[0].objective if objectives else Objective())


def members(nodes: Any) -> dict[str, Any]:
    """The nodes of a mapping, or of a list by number, without those that are null."""
    named = nodes if isinstance(nodes, Mapping) else dict(enumerate(nodes or ()))
    return {str(name): node for name, node in named.items() if node is not None}


def targets(nodes: Any) -> dict[str, Any]:
    """The members with a `_target_`: an overlay may change an object that another option has taken away.

    UsageError for a member that is no mapping.
    """
    named = members(nodes)
    for name, node in named.items():
        if not isinstance(node, Mapping):
            raise UsageError(f"{name} must be a mapping with a _target_, got {node!r}.")
    return {name: node for name, node in named.items() if "_target_" in node}
