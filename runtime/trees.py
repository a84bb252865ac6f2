"""Walks over nests of modules, dicts, lists, tuples and dataclasses of arrays; nothing inside a list is missed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from runtime.errors import UsageError
from runtime.table import Table

Array = mx.array | np.ndarray


def leaves(tree: Any, path: str = "", private: bool = False) -> Iterator[tuple[str, Array]]:
    """The MLX and NumPy arrays below `tree` with their dotted paths; an array alone has the path given.

    private: also those below names such as "_x", a module's constants. What holds no arrays is left out.
    """
    if isinstance(tree, Array):
        yield path, tree
        return
    for key, value in _inside(tree):
        if private or not (isinstance(key, str) and key.startswith("_")):
            yield from leaves(value, f"{path}.{key}" if path else str(key), private)


def _inside(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, Table):
        tree = tree.state
    if isinstance(tree, Mapping):
        yield from tree.items()
    elif isinstance(tree, list | tuple | set | frozenset):
        yield from enumerate(tree)
    elif is_dataclass(tree) and not isinstance(tree, type):
        yield from ((field.name, getattr(tree, field.name)) for field in fields(tree))


def hidden(tree: Any, path: str = "") -> Iterator[str]:
    """The paths of tuples and sets in a nest of modules that hold arrays or modules: MLX sees no parameters in them.

    Private names are left out: what stands there is meant to be no parameter.
    """
    items: list[tuple[Any, Any]] = [*tree.items()] if isinstance(tree, dict) else [*enumerate(tree)]
    if isinstance(tree, nn.Module):
        items += [*vars(tree).items()]  # MLX keeps a set as a plain attribute
    for key, value in items:
        if isinstance(key, str) and key.startswith("_"):
            continue
        place = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict | list):
            yield from hidden(value, place)
        elif isinstance(value, tuple | set | frozenset) and _learns(value):
            yield place


def _learns(tree: Any) -> bool:
    """Whether there is an MLX array or a module in a nest."""
    if isinstance(tree, mx.array | nn.Module):
        return True
    return any(_learns(item) for _, item in _inside(tree))


def flatten(tree: Any) -> dict[str, mx.array]:
    """The MLX arrays below `tree` by dotted path; private names ("_x", constants of a module) are left out."""
    return {path: leaf for path, leaf in leaves(tree) if isinstance(leaf, mx.array)}


def unflatten(arrays: dict[str, mx.array]) -> Any:
    """The nest that `arrays` was flattened from; tuples come back as lists."""
    return tree_unflatten(list(arrays.items()))


def tree_map(function: Callable[..., Any], tree: Any, *others: Any, path: str = "") -> Any:
    """A nest like `tree` with function(array, those of `others` at its place) for every array; all else stays.

    A module becomes a dictionary of what is below it, without its private names. Raises UsageError where another nest
    lacks a place or has more. path: what messages call the root.
    """
    if isinstance(tree, Array):
        return function(tree, *others)
    if not isinstance(tree, Mapping | list | tuple):
        return tree
    items = _items(tree)
    rest = [_members(other, items, path or "the root") for other in others]
    made = {k: tree_map(function, v, *(r[k] for r in rest), path=f"{path}.{k}" if path else f"{k}")
            for k, v in items.items()}  # fmt: skip
    if isinstance(tree, Mapping):
        return made
    return type(tree)(*made.values()) if hasattr(tree, "_fields") else type(tree)(made.values())


def _items(tree: Any) -> dict:
    """What stands in a dictionary, list or tuple by key or number; of a module without private names."""
    items = dict(tree) if isinstance(tree, Mapping) else dict(enumerate(tree if isinstance(tree, list | tuple) else ()))
    return {k: v for k, v in items.items() if not (isinstance(tree, nn.Module) and str(k).startswith("_"))}


def _members(other: Any, items: dict, path: str) -> dict:
    """Those of another nest at the same place."""
    found = _items(other)
    if found.keys() != items.keys():
        has = ", ".join(map(str, found)) or type(other).__name__
        raise UsageError(f"the nests differ at {path}: one has {', '.join(map(str, items)) or 'nothing'}, one {has}.")
    return found


def detach(tree: Any, evaluate: bool = False) -> Any:
    """A nest like `tree` whose arrays pass no gradient on, as `tree_map` gives it.

    evaluate: also computes them, without which they hold on to all that they are made of (not inside mx.compile).
    """
    cut = tree_map(lambda array: mx.stop_gradient(array) if isinstance(array, mx.array) else array, tree)
    if evaluate:
        mx.eval(list(flatten(cut).values()))
    return cut


def count_parameters(model: nn.Module, trainable: bool = False) -> int:
    """How many numbers the model holds, a shared array once; without `trainable` BatchNorm statistics count too."""
    arrays = flatten(model.trainable_parameters() if trainable else model.parameters())
    return sum(array.size for array in {id(array): array for array in arrays.values()}.values())
