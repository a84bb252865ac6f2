"""The op that trains: which loss, which leaves, which optimizer, and the averages kept of the result."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten

from runtime.errors import UsageError
from runtime.op import Op
from training.ema import Averages

Leaves = dict[str, mx.array]


class UpdateOp(Op):
    """Moves the trainable leaves of `model` down the gradient of `loss_name`.

    optimizer: called with `learning_rate` to make an mlx optimizer. The rate of a step is
    learning_rate x schedule(step) x scale, where `scale` is state that a trace may lower.
    groups: parameter groups, mappings with `match` (a regular expression searched in the leaf's path) and their own
    `optimizer`, `learning_rate` or `schedule`; the first match wins and the rest belongs to the outer one.
    clip: largest global gradient norm. ema: decays of the averages kept (several at will).
    Raises UsageError when a group matches no leaf.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Callable[..., Optimizer],
        learning_rate: float = 1e-3,
        loss_name: str = "loss",
        schedule: Callable[[mx.array], Any] | None = None,
        clip: float | None = None,
        ema: Sequence[float] = (),
        ema_warmup: bool = True,
        groups: Sequence[Mapping[str, Any]] = (),
        name: str = "model",
    ):
        super().__init__(inputs=loss_name, mode="train")
        if clip is not None and clip <= 0:
            raise UsageError(f"clip must be positive or null, got {clip}.")
        self.model, self.loss_name, self.clip, self.models = model, loss_name, clip, {name: model}
        outer = {"match": "", "optimizer": optimizer, "learning_rate": learning_rate, "schedule": schedule}
        self.groups = [Group(**{**outer, **group}) for group in (*groups, outer)]
        leaves = self.leaves()
        self.owner = {path: self._owner(path) for path in leaves}
        for i, group in enumerate(self.groups):
            own = {path: leaf for path, leaf in leaves.items() if self.owner[path] == i}
            if not own and i < len(self.groups) - 1:
                some = ", ".join(list(leaves)[:3])
                raise UsageError(f"parameter group {group.match!r} matches none of {len(leaves)} leaves ({some}, ...).")
            group.optimizer.init(own)
        self.averages = Averages(ema, leaves, ema_warmup)
        self.state = {
            "optimizers": [group.optimizer.state for group in self.groups],
            "ema": self.averages.state,
            "scale": mx.array(1.0),
        }

    def _owner(self, path: str) -> int:
        return next(i for i, group in enumerate(self.groups) if re.search(group.match, path))

    def leaves(self) -> Leaves:
        """The leaves this update trains, by path."""
        return dict(tree_flatten(self.model.trainable_parameters()))

    def apply(
        self, gradients: Leaves, parameters: Leaves, step: mx.array, norm: mx.array | None = None
    ) -> tuple[Leaves, dict[str, mx.array]]:
        """New leaves and what to log, from gradients averaged over micro-batches; optimizer and averages advance.

        norm: of all gradients, where the caller knows it.
        """
        norm = global_norm(gradients) if norm is None else norm
        if self.clip is not None:
            factor = mx.minimum(1.0, self.clip / (norm + 1e-6))
            gradients = {path: g * factor for path, g in gradients.items()}
        new: Leaves = {}
        for i, group in enumerate(self.groups):
            own = {path: g for path, g in gradients.items() if self.owner[path] == i}
            if own:
                group.optimizer.learning_rate = group.rate(step) * self.state["scale"]
                new |= group.optimizer.apply_gradients(own, {path: parameters[path] for path in own})
        self.averages.update(new)
        return new, {"grad_norm": norm, "learning_rate": self.groups[-1].optimizer.learning_rate}


class Group:
    """Leaves that share an optimizer and a rate."""

    def __init__(
        self, match: str, optimizer: Callable[..., Optimizer], learning_rate: float, schedule: Callable | None
    ):
        self.match, self.base, self.schedule = match, learning_rate, schedule
        self.optimizer = optimizer(learning_rate=learning_rate)

    def rate(self, step: mx.array) -> mx.array:
        """The learning rate at an optimizer step (0-d int32), before the scale."""
        return mx.array(self.base, mx.float32) * (1.0 if self.schedule is None else self.schedule(step))


def global_norm(leaves: Leaves) -> mx.array:
    """The Euclidean norm over all leaves, in float32."""
    return mx.sqrt(sum((g.astype(mx.float32).square().sum() for g in leaves.values()), mx.array(0.0)))
