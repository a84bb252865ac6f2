"""Builds objects from config nodes that name a `_target_`; only this repository, mlx.optimizers and named plugins."""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any

import mlx.nn as nn
from omegaconf import DictConfig, ListConfig, OmegaConf

from runtime.errors import UsageError, closest

ROOMS = (
    "dataloaders",
    "domains",
    "evaluation",
    "losses",
    "models",
    "ops",
    "optimizers",
    "runtime",
    "solvers",
    "traces",
    "training",
    "visualizers",
)
ALLOWED = (*ROOMS, "mlx.optimizers", "mlx.nn")  # fmt: skip


def locate(path: str, plugins: tuple[str, ...] = ()) -> Any:
    """The object at a dotted path, if its package is allowed (ours, MLX's, or one named in `plugins`)."""
    module_name, _, attribute = path.rpartition(".")
    if not any(module_name == room or module_name.startswith(room + ".") for room in (*ALLOWED, *plugins)):
        raise UsageError(
            f"_target_ {path!r} is outside the packages a config may build from; it must start with one of "
            f"{', '.join((*ALLOWED, *plugins))} (add your own package with plugins=[name])."
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise UsageError(f"_target_ {path!r} needs the package {error.name!r}, which is not installed.") from error
        raise UsageError(f"_target_ {path!r}: there is no module {module_name!r} beside launcher.py or in a folder of "
                         "PYTHONPATH.") from error  # fmt: skip
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise UsageError(
            f"_target_ {path!r}: {module_name} has no {attribute!r}; nearest: {closest(attribute, public)}."
        )
    return getattr(module, attribute)


def build(
    node: Any, *args: Any, plugins: tuple[str, ...] = (), models: Mapping[str, nn.Module] | None = None, **extra: Any
) -> Any:
    """Builds a config node and everything inside it; `extra` are further keyword arguments of the outermost object.

    A mapping with `_target_` becomes a call (a partial with `_partial_: true`); other mappings and lists are
    rebuilt with their members built. A name given for an argument that is annotated as a module means the one of that
    name in `models`. Raises UsageError for unknown or missing arguments, unknown models and wrong simple types.
    """
    if isinstance(node, DictConfig | ListConfig):
        node = OmegaConf.to_container(node, resolve=True)
    if isinstance(node, list):
        return [build(item, plugins=plugins, models=models) for item in node]
    if not isinstance(node, Mapping):
        return node
    inner = {k: build(v, plugins=plugins, models=models) for k, v in node.items() if k not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return {**inner, **extra}
    if not isinstance(node["_target_"], str):
        raise UsageError(f"_target_ must be a dotted path such as models.mlp.MLP, got {node['_target_']!r}.")
    target = locate(node["_target_"], plugins)
    kwargs = {**inner, **extra}
    if models is not None:
        kwargs = with_modules(target, node["_target_"], kwargs, models)
    check_arguments(target, node["_target_"], args, kwargs, partially=bool(node.get("_partial_")))
    if node.get("_partial_"):
        return partial(target, *args, **kwargs)
    try:
        return target(*args, **kwargs)
    except (ValueError, ZeroDivisionError) as error:
        given = ", ".join(f"{k}={v!r}" for k, v in kwargs.items() if isinstance(v, int | float | str | list | None))
        raise UsageError(f"{node['_target_']} can't be built from {given}: {error}") from error


def check_arguments(target: Any, name: str, args: tuple, kwargs: dict[str, Any], partially: bool) -> None:
    """Raises UsageError where the arguments do not fit the signature: unknown, missing, or of a wrong simple type."""
    signature = inspect.signature(target)
    parameters = signature.parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in kwargs:
            if key not in parameters:
                near = closest(key, list(parameters))
                raise UsageError(f"{name} takes no argument {key!r}; nearest of what it takes: {near}.")
    try:
        bound = signature.bind_partial(*args, **kwargs) if partially else signature.bind(*args, **kwargs)
    except TypeError as error:
        raise UsageError(f"{name}: {error}; its signature is {signature}.") from error
    hints = hints_of(target)
    for key, value in bound.arguments.items():
        if key in hints and not fits(value, hints[key]):
            raise UsageError(f"{name}: {key} must be {_spell(hints[key])}, got {value!r}.")


def hints_of(target: Any) -> dict[str, Any]:
    """The annotations of what a call of `target` takes."""
    return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)


def with_modules(target: Any, name: str, kwargs: dict[str, Any], models: Mapping[str, nn.Module]) -> dict[str, Any]:
    """The arguments with modules in the place of their names; UsageError for a name that no module has."""
    hints, found = hints_of(target), dict(kwargs)
    for key, value in kwargs.items():
        options = typing.get_args(hints.get(key)) or (hints.get(key),)
        if isinstance(value, str) and any(inspect.isclass(o) and issubclass(o, nn.Module) for o in options):
            if value not in models:
                raise UsageError(f"{name}: there is no {key} {value!r}; the models are {', '.join(models)}.")
            found[key] = models[value]
    return found


def fits(value: Any, hint: Any) -> bool:
    """Whether a value fits a hint: plain values fit no class of objects, and objects fit every such hint."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    if hint is Any:
        return True
    if hint in (None, type(None)):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    origin, members = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (list, tuple, Sequence):
        one = members[0] if members and (origin is not tuple or members[1:] == (...,)) else Any
        return isinstance(value, list | tuple) and all(fits(item, one) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    if origin is Callable:
        return callable(value)
    if inspect.isclass(origin) and not issubclass(origin, PurePath) and isinstance(value, str | int | float):
        return not getattr(origin, "_is_protocol", False) and isinstance(value, origin)
    return True


def _spell(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    spelt = getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)
    return spelt.replace("collections.abc.", "").replace("typing.", "")
