"""Leaves that share an optimizer and a rate, and how an optimizer is made from what the user names."""

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import mlx.core as mx
import mlx.optimizers as optim
from mlx.optimizers import Optimizer

from runtime.errors import UsageError, closest

# PyTorch's default rates and settings; MLX leaves Adam's bias correction out unless told
OPTIMIZERS: dict[str, tuple[Callable[..., Optimizer], float, dict[str, Any]]] = {
    "adadelta": (optim.AdaDelta, 1.0, {"rho": 0.9, "eps": 1e-6}),
    "adagrad": (optim.Adagrad, 1e-2, {"eps": 1e-10}),
    "adam": (optim.Adam, 1e-3, {"bias_correction": True}),
    "adamax": (optim.Adamax, 2e-3, {}),
    "adamw": (optim.AdamW, 1e-3, {"weight_decay": 1e-2, "bias_correction": True}),
    "lion": (optim.Lion, 1e-4, {}),
    "rmsprop": (optim.RMSprop, 1e-2, {"alpha": 0.99, "eps": 1e-8}),
    "sgd": (optim.SGD, 1e-2, {}),
}
RATE = 1e-3  # of an optimizer that asks for a rate where none is given

Maker = str | Optimizer | Callable[..., Optimizer]


def check_groups(groups: Sequence[Mapping[str, Any]]) -> None:
    """Raises UsageError for a parameter group that is no mapping with a regular expression `match` and known keys."""
    valid = ("match", "optimizer", "learning_rate", "schedule")
    for group in groups:
        if not isinstance(group, Mapping) or not isinstance(group.get("match"), str):
            raise UsageError(f"a parameter group is a mapping with `match`, a regular expression; got {group!r}.")
        for key in group:
            if key not in valid:
                raise UsageError(f"a parameter group has no key {key!r}; nearest: {closest(key, list(valid))}.")
        try:
            re.compile(group["match"])
        except re.error as error:
            raise UsageError(
                f"match={group['match']!r} of a parameter group is no regular expression: {error}."
            ) from error


class Group:
    """Leaves that share an optimizer and a rate.

    match: a regular expression searched in a leaf's path. optimizer: a name, an mlx optimizer or a callable that makes
    one (see `make_optimizer`). learning_rate: None takes the optimizer's own. The rate of a step is learning_rate x
    schedule(step); a schedule of the optimizer's own rate becomes the group's.
    """

    def __init__(self, match: str, optimizer: Maker, learning_rate: float | None, schedule: Callable | None,
                 parameters: Any = None):  # fmt: skip
        if learning_rate is not None and not 0 <= learning_rate < math.inf:
            raise UsageError(f"learning_rate must be a number from 0 on, got {learning_rate}.")
        self.match, self.optimizer = match, make_optimizer(optimizer, learning_rate, parameters)
        own = self.optimizer._schedulers.pop("learning_rate", None)
        if own is not None and schedule is not None:
            raise UsageError("the optimizer's learning_rate is a schedule already; give it one number or no schedule.")
        self.schedule = own if schedule is None else schedule
        given = self.optimizer.learning_rate.item() if learning_rate is None and own is None else learning_rate
        self.base = 1.0 if own is not None else given

    def rate(self, step: mx.array) -> mx.array:
        """The learning rate at an optimizer step (0-d int32), before the scale."""
        return mx.array(cast(float, self.base), mx.float32) * (1.0 if self.schedule is None else self.schedule(step))


def make_optimizer(maker: Maker, learning_rate: float | None = None, parameters: Any = None) -> Optimizer:
    """An mlx optimizer from a name ("adam"), an optimizer, or a callable.

    A callable that has a parameter `learning_rate` gets it by name, another single parameter without a default gets the
    model's trainable parameters, as FastEstimator's does. Raises UsageError for what makes no optimizer.
    """
    if isinstance(maker, Optimizer):
        return maker
    if isinstance(maker, str):
        if maker not in OPTIMIZERS:
            raise UsageError(f"there is no optimizer {maker!r}; nearest: {closest(maker, list(OPTIMIZERS))}.")
        kind, rate, settings = OPTIMIZERS[maker]
        return kind(learning_rate=rate if learning_rate is None else learning_rate, **settings)
    signature = inspect.signature(maker).parameters
    needed = [
        p for p in signature.values() if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if "learning_rate" in signature:
        given = learning_rate is None and signature["learning_rate"].default not in (inspect.Parameter.empty, None)
        made = maker() if given else maker(learning_rate=RATE if learning_rate is None else learning_rate)
    else:
        made = maker(parameters) if len(needed) == 1 else maker()
    if not isinstance(made, Optimizer):
        raise UsageError(f"an optimizer_fn must give an mlx optimizer, got {type(made).__name__}.")
    return made
