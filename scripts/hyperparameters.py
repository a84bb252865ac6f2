"""The arguments of a user's function from a command line and a file, typed by what the function declares."""

import ast
import inspect
import json
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from runtime.errors import UsageError, closest
from runtime.instantiate import fits


def read_file(path: str) -> dict[str, Any]:
    """The arguments in a JSON or YAML file, a mapping; UsageError for another."""
    file = Path(path)
    if not file.is_file() or file.suffix not in (".json", ".yaml", ".yml"):
        raise UsageError(f"--hyperparameters needs an existing .json, .yaml or .yml file, got {path!r}.")
    try:
        text = file.read_text()
        found = json.loads(text) if file.suffix == ".json" else OmegaConf.to_container(OmegaConf.create(text))
    except (ValueError, YAMLError) as error:
        raise UsageError(f"can't read {path}: {str(error).splitlines()[0]}.") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} must hold a mapping of argument names to values, got {found!r}.")
    return {str(name): value for name, value in found.items()}


def split(words: list[str]) -> dict[str, list[str] | None]:
    """Command-line words as {name: values}: --name value, --name=value, --name v1 v2; None for a bare --name."""
    found: dict[str, list[str] | None] = {}
    name = ""
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            if name in found:
                raise UsageError(f"--{name} is given twice; give it once.")
            found[name] = [value] if equals else None
        elif not name:
            raise UsageError(f"can't read {word!r}; needed: --name value.")
        else:
            found[name] = [*(found[name] or []), word]
    return found


def arguments_for(function: Callable, words: list[str], stored: dict[str, Any] | None = None) -> dict[str, Any]:
    """Keyword arguments of `function`: those stored in a file, over them those of the command line.

    A text is read as the parameter's annotation says, without one as its default's type, else as a Python literal or
    left a text. UsageError for unknown and missing names and for values that don't fit.
    """
    name = getattr(function, "__name__", "the function")
    parameters = inspect.signature(function).parameters
    hints = typing.get_type_hints(function)
    known = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given: dict[str, Any] = {**(stored or {}), **split(words)}
    typed = set(split(words))
    for key in given:
        if key not in known and not takes_any:
            near = f"; nearest: {closest(key, known, 1)}" if known else ""
            raise UsageError(f"{name} takes no argument {key!r}{near}; it takes {', '.join(known) or 'none'}.")
    result = {}
    for key, value in given.items():
        hint = _hint(parameters.get(key), hints.get(key, inspect.Parameter.empty))
        result[key] = read(key, value, hint) if key in typed else value
        if hint is not inspect.Parameter.empty and not fits(result[key], hint):
            raise UsageError(f"{name}: {key} must be {spelled(hint)}, got {result[key]!r}.")
    for key in known:
        if key not in result and parameters[key].default is inspect.Parameter.empty:
            raise UsageError(f"{name} needs the argument {key!r}; give --{key} VALUE.")
    return result


def _hint(parameter: inspect.Parameter | None, annotation: Any) -> Any:
    if annotation is not inspect.Parameter.empty or parameter is None:
        return annotation
    default = parameter.default
    simple = isinstance(default, bool | int | float | str | list | tuple)
    return type(default) if simple else inspect.Parameter.empty


def read(name: str, words: list[str] | None, hint: Any) -> Any:
    """The value of an argument's words as a hint wants it; UsageError where it can't be."""
    if words is None:  # a bare --flag
        return True
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    origins = [typing.get_origin(option) or option for option in options]
    if len(words) > 1 or any(origin in (list, tuple) for origin in origins):
        inner = next((typing.get_args(o) for o in options if typing.get_origin(o) in (list, tuple)), ())
        element = inner[0] if inner else inspect.Parameter.empty
        literal = _literal(words[0]) if len(words) == 1 else None
        if isinstance(literal, list | tuple):
            values = list(literal)
        elif len(words) == 1 and words[0].lower() in ("none", "null") and type(None) in options:
            return None
        else:
            values = [read(name, [word], element) for word in words]
        return tuple(values) if tuple in origins else values
    text = words[0]
    if type(None) in options and text.lower() in ("none", "null"):
        return None
    if bool in origins and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        if kind in origins:
            try:
                return kind(text)
            except ValueError:
                continue
    if str in origins:
        return text
    return _literal(text)


def _literal(text: str) -> Any:
    """A Python literal, or the text itself; true and false as YAML spells them too."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def spelled(hint: Any) -> str:
    """A type hint in words."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return str(hint) if typing.get_args(hint) else getattr(hint, "__name__", str(hint))
