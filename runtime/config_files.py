"""Configurations as YAML files: written resolved and whole or not at all, read with one sentence for what is wrong."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError, safe_load

from runtime.errors import UsageError

UNTOLD = ("run_name", "resume", "overwrite")  # they name the run and say how a sitting began
MISSING = "(none)"


def config_file(path: str | Path) -> Path:
    """The file meant by a path: itself, or in a run's folder the config of its last sitting."""
    path = Path(path)
    if not path.is_dir():
        return path
    sittings = {int(m[1]): file for file in path.iterdir() if (m := re.fullmatch(r"resume-(\d+)\.yaml", file.name))}
    file = sittings[max(sittings)] if sittings else path / "config.yaml"
    if not file.is_file():
        raise UsageError(f"{path} is no run's folder: it has no config.yaml.")
    return file


def load_config(path: str | Path) -> DictConfig:
    """The config in a YAML file, or of a run's last sitting where `path` is its folder.

    UsageError where there is none, and for one that can't be read or is no mapping.
    """
    file = config_file(path)
    if not file.is_file():
        raise UsageError(f"there is no config at {path}; needed: a YAML file or a run's folder.")
    try:
        given, config = safe_load(file.read_text()), OmegaConf.load(file)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"can't read {file}: {' '.join(str(error).split())}.") from error
    if not isinstance(given, dict) or not isinstance(config, DictConfig):  # OmegaConf makes keys of a text
        raise UsageError(f"{file} holds no keys with values, but a {type(given).__name__}; needed: a mapping.")
    return config


def save_config(config: Mapping[str, Any] | DictConfig, path: str | Path) -> Path:
    """Writes a config, its references resolved, so that `load_config` gives equal values; makes the folders above.

    UsageError for a reference that leads nowhere and for a value that is still missing ("???").
    """
    path = Path(path)
    try:
        made = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
        missing = sorted(OmegaConf.missing_keys(made))
        text = OmegaConf.to_yaml(made, resolve=True)
    except OmegaConfBaseException as error:
        raise UsageError(f"can't write this config to {path}: {str(error).splitlines()[0]}.") from error
    if missing:
        raise UsageError(f"can't write this config to {path}: {missing[0]} has no value.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def leaves(value: Any, key: str = "") -> dict[str, Any]:
    """The single values of nested dictionaries and lists of them by dotted keys; lists of plain values stay whole."""
    nested = isinstance(value, list) and any(isinstance(one, dict | list) for one in value)
    inner = dict(enumerate(value)) if nested else value
    if not isinstance(inner, dict) or not inner:
        return {key: value}
    found: dict[str, Any] = {}
    for name, one in inner.items():
        found |= leaves(one, f"{key}.{name}" if key else str(name))
    return found


def differences(configs: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows (key, value of each run), keys in order, where not all runs have the same value of the same type."""
    rows = []
    for key in sorted({key for config in configs.values() for key in config} - {*UNTOLD}):
        values = [repr(config[key]) if key in config else MISSING for config in configs.values()]
        if len(set(values)) > 1:
            rows.append((key, *values))
    return rows
