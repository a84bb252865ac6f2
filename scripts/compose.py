"""Hydra's composition with answers for people: every mistake becomes one sentence with the names that are valid."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runtime.errors import UsageError, closest
from runtime.schema import Train, check_run_name, check_values

PATHS = ("output_dir", "init_from", "eval_checkpoint")
CONFIGS = Path(__file__).resolve().parent.parent / "configs"
ConfigStore.instance().store(name="schema", node=Train)


def compose(overrides: list[str], configs: Path = CONFIGS) -> DictConfig:
    """The resolved, checked configuration of these overrides; UsageError for anything wrong in them.

    configs: the folder of YAML, a sweep's copy of it for instance.
    """
    overrides = [quoted(text) for text in overrides]
    overrides = [f"~{text[:-5]}" if text.endswith("=null") and text[:-5] in groups() else text for text in overrides]
    try:
        config = _compose(overrides, configs)
        if config.dataloaders is None:
            raise UsageError("dataloaders is null; needed: dataloaders=NAME.")
        if config.batch_size is not None:
            config.dataloaders.batch_size = config.batch_size
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: a number for a group, model=5
        raise UsageError(explain(error, overrides)) from error
    check_run_name(config.run_name)
    check_values(config)
    return config


def _compose(overrides: list[str], configs: Path = CONFIGS) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        return hydra_compose("train", overrides=overrides)


def quoted(override: str) -> str:
    """A run_name override in quotes, so that YAML leaves 1.10, 1e3 and true the names they are; debug=nan likewise.

    So are paths with characters that Hydra's grammar doesn't know (letters beyond English, brackets, ...).
    """
    if override == "debug=nan":
        return "debug='nan'"
    key, _, value = override.partition("=")
    if value[:1] in ("'", '"') or key not in ("run_name", *PATHS):
        return override
    if key == "run_name":
        check_run_name(value)
        return f"run_name='{value}'"
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        value = value.replace("'", "\\'")
        return f"{key}='{value}'"
    return override


def told(overrides: Sequence[str], key: str) -> str | None:
    """The text that overrides give for a key, the last of several, without quotes around it."""
    found = [value for name, _, value in (text.partition("=") for text in overrides) if name == key]
    if not found:
        return None
    return found[-1][1:-1] if re.fullmatch(r"(['\"]).*\1", found[-1]) else found[-1]


def yes(overrides: Sequence[str], key: str) -> bool:
    """Whether overrides say true for a key, in any of YAML's ways."""
    return (told(overrides, key) or "").lower() in ("true", "1", "yes", "on", "y")


def run_name_of(overrides: list[str]) -> str | None:
    """The run name among overrides, as typed."""
    return told(overrides, "run_name")


def merged(stored: list[str], given: list[str]) -> list[str]:
    """Overrides of an earlier sitting, without those whose key has a new one, then today's.

    A deletion stays where today's adds the key anew.
    """

    def key(text: str) -> str:
        return text.split("=", 1)[0].lstrip("+~")

    new = {key(text): text for text in given}
    kept = [o for o in stored if key(o) not in new or (o.startswith("~") and new[key(o)].startswith("+"))]
    return [*kept, *given]


def options(group: str) -> list[str]:
    """The options of a config group."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def groups() -> list[str]:
    """The config groups."""
    return sorted(path.name for path in CONFIGS.iterdir() if path.is_dir())


def explain(error: Exception, overrides: Sequence[str] = ()) -> str:
    """One sentence for an error of Hydra or OmegaConf in the composition of these overrides."""
    text = str(error)
    if found := re.search(r"Multiple values for (\S+)\. To override", text):
        return f"{found[1]} has one option; needed: {found[1]}=NAME without a + before it."
    if found := re.search(r"Could not find '(\w+)/([^']*)'", text):
        group, got = found.groups()
        return (
            f"{group}={got} does not exist; nearest: {closest(got, options(group))}; all: {', '.join(options(group))}."
        )
    if found := re.search(r"Could not (?:override|delete)[^']*'([^']+)'", text):
        return _unknown_key(found[1], overrides)
    if found := re.search(r"Key '([^']+)' is not in struct\s+full_key: (\S+)", text):
        return _unknown_key(found[2], overrides)
    if isinstance(error, OverrideParseException):
        key, equals, value = str(error.override).partition("=")
        hint = f"; a value with special characters stands in quotes: {key}='\"{value}\"'" if equals and value else ""
        return f"can't read the override {error.override!r}; needed: key=value, +key=value or ~key{hint}."
    if found := re.search(r"full_key: (\S+)", text):
        return f"{found[1]}: {text.splitlines()[0]}."
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and cause is not None:
        return explain(cause, overrides) if isinstance(cause, HydraException | OmegaConfBaseException) else str(cause)
    return text.replace("\n", " ")


def _unknown_key(key: str, overrides: Sequence[str]) -> str:
    config: Any = _compose(["run_name=x", *(text for text in overrides if text.split("=")[0] in groups())])
    *parents, leaf = key.split(".")
    for depth, parent in enumerate(parents):
        if not isinstance(config, DictConfig) or parent not in config:
            return _unknown_key(".".join(parents[: depth + 1]), overrides)
        config = config[parent]
    valid = [str(name) for name in config] if isinstance(config, DictConfig) else []
    where = f" in {'.'.join(parents)}" if parents else ""
    if not parents:
        valid = [*valid, *(group for group in groups() if group not in valid)]
    if not valid:
        return f"there is no key {leaf!r}{where}, which has none (new keys are added with +{key}=...)."
    return f"there is no key {leaf!r}{where}; nearest: {closest(leaf, valid)} (new keys are added with +{key}=...)."
