"""key=value arguments of the scripts: typed by a dataclass, with options and keys of config groups."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ValidationError

from runtime.errors import UsageError, closest
from scripts.compose import CONFIGS, groups, options

Settings = TypeVar("Settings")


def command(work: Callable[[list[str]], None], usage: str, arguments: list[str]) -> int:
    """Runs a script; returns its exit status: 0, or 2 for the user's mistakes, told on stderr."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(usage.strip())
        return 0 if arguments else 2
    try:
        work(arguments)
    except (UsageError, OSError) as error:  # OSError: a full disk, a folder that can't be written
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: list[str], kind: type[Settings]) -> tuple[Settings, dict[str, Any]]:
    """The settings, a dataclass, and the changes of config groups, {"solver.steps": 20}.

    A group whose name is a setting takes changes. UsageError for unknown keys, wrong types and missing settings.
    """
    settings, changes = OmegaConf.structured(kind), {}
    valid = [str(key) for key in settings]
    open_groups = [group for group in groups() if group in valid]
    for text in arguments:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"can't read {text!r}; needed: key=value.")
        if key in valid:
            try:  # the text itself: YAML would make 1.1 of a folder named 1.10
                settings[key] = None if value == "null" else value
            except ValidationError as error:
                raise UsageError(f"{key}: {str(error).splitlines()[0]}.") from error
        elif key.partition(".")[0] in open_groups:
            changes[key] = OmegaConf.from_dotlist([f"value={value}"])["value"]
        else:
            names = [*valid, *(f"{group}.KEY" for group in open_groups)]
            raise UsageError(f"there is no key {key!r}; nearest: {closest(key, names)}.")
    if missing := sorted(OmegaConf.missing_keys(settings)):
        raise UsageError(f"{missing[0]} is missing; needed: {missing[0]}=... (--help says more).")
    made: Any = OmegaConf.to_object(settings)
    return made, changes


def change(config: DictConfig, group: str, option: str | None, changes: dict[str, Any]) -> None:
    """Puts an option of a group (None: stay with the run's own) into a config, then the changes of its keys."""
    if option is not None:
        if option not in options(group):
            near, known = closest(option, options(group)), ", ".join(options(group))
            raise UsageError(f"{group}={option} does not exist; nearest: {near}; all: {known}.")
        config[group] = OmegaConf.load(CONFIGS / group / f"{option}.yaml")
    for key, value in changes.items():
        if not key.startswith(f"{group}."):
            continue
        parent, _, leaf = key.rpartition(".")
        place: Any = OmegaConf.select(config, parent)
        valid = [str(name) for name in place] if isinstance(place, DictConfig) else []
        if leaf not in valid:
            raise UsageError(f"there is no key {leaf!r} in {parent}; nearest: {closest(leaf, valid) or 'none'}.")
        place[leaf] = value


def weights(text: str) -> bool | float:
    """The weights meant by ema=true (the first average kept), ema=false (the plain ones) or ema=DECAY."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"ema must be true, false or a decay such as 0.999, got {text!r}.") from error


def at_least(bound: int, **values: int | None) -> None:
    """Raises UsageError for a value below the bound; None passes."""
    for name, value in values.items():
        if value is not None and value < bound:
            raise UsageError(f"{name} must be at least {bound}, got {value}.")


def ends_in(suffixes: tuple[str, ...], **paths: str | None) -> None:
    """Raises UsageError for a file name with another suffix; None passes."""
    for name, path in paths.items():
        if path is not None and not path.endswith(suffixes):
            raise UsageError(f"{name} must be a file name that ends in {' or '.join(suffixes)}, got {path!r}.")
