"""Objects in words: what a report says of an object's settings."""

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

MANY, LONG, DEEP = 8, 120, 2  # entries shown of a list, letters of a text, nests within nests


def settings(thing: Any) -> dict[str, str]:
    """What an object was made with, in words: the constructor's arguments that it keeps under their names.

    Where it keeps half of them or less so, its other public attributes that are numbers, texts or lists join them.
    """
    held = dict(vars(thing)) if hasattr(thing, "__dict__") else {}
    parameters = inspect.signature(type(thing)).parameters
    held |= {name: getattr(thing, name) for name in parameters if isinstance(getattr(type(thing), name, 0), property)}
    named = [name for name in parameters if name in held]
    others = [name for name, value in held.items() if name[0] != "_" and name not in named and plain(value)]
    few = 2 * len(named) <= len(parameters)
    return {name: worded(held[name]) for name in (*named, *(others if few else ()))}


def plain(value: Any) -> bool:
    """Whether a value is a number, a text, a path, None, or a list of such."""
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return value is None or isinstance(value, bool | int | float | str | Path)


def worded(value: Any, depth: int = 0) -> str:
    """A value in a few words: numbers and texts as they are, arrays by type and shape, other objects by class."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None or isinstance(value, bool | int | str):
        return cut(repr(value))
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, mx.array | np.ndarray):
        kind = str(value.dtype).removeprefix("mlx.core.")
        return f"{value.item():.6g}" if value.size == 1 and value.ndim == 0 else f"{kind} {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        name = getattr(value, "model_name", None)
        return type(value).__name__ + (f" {name!r}" if name else "")
    if isinstance(value, Mapping):
        return _several("{}", [f"{worded(k)}: {worded(v, depth + 1)}" for k, v in value.items()], depth)
    if isinstance(value, list | tuple | set | frozenset):
        return _several("()" if isinstance(value, tuple) else "[]", [worded(v, depth + 1) for v in value], depth)
    if isinstance(value, partial):
        given = [*map(worded, value.args), *(f"{name}={worded(v)}" for name, v in value.keywords.items())]
        return _several("()", [worded(value.func), *given], depth)
    if inspect.isfunction(value) and value.__name__ == "<lambda>":
        return _source(value)
    if inspect.isroutine(value) or inspect.isclass(value):
        return f"{value.__module__}.{value.__qualname__}"
    return type(value).__name__


def cut(text: str) -> str:
    """A text of at most 120 letters."""
    return text if len(text) <= LONG else text[: LONG - 3] + "..."


def _several(brackets: str, words: list[str], depth: int) -> str:
    if depth >= DEEP and words:
        return f"{brackets[0]}{len(words)} entries{brackets[1]}"
    more = [f"... {len(words) - MANY} more"] if len(words) > MANY else []
    comma = "," if brackets == "()" and len(words) == 1 else ""
    return brackets[0] + ", ".join([*words[:MANY], *more]) + comma + brackets[1]


def _source(function: Any) -> str:
    """The line that a lambda stands in, where there is its file."""
    try:
        return cut(" ".join(inspect.getsource(function).split()))
    except (OSError, TypeError):
        return "lambda"
