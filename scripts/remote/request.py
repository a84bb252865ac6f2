"""One run to be sent away: everything about it that can be checked on this machine, checked."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import OmegaConf

from runtime.errors import UsageError
from scripts.compose import compose, run_name_of, yes
from scripts.remote.options import Options
from scripts.remote.spec import place_of
from scripts.remote.status import made_here

FOLDERS = ("data", "outputs")  # of the working directory, here and on the volume
NAMES = ("root", "folder", "file", "weights", "cache", "init_from")  # keys whose text is a path


@dataclass(frozen=True)
class Request:
    """A checked run. paths: files and folders that it reads. digest: of the composed configuration."""

    run_name: str
    overrides: list[str]
    options: Options
    digest: str
    paths: list[str] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    job: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    @property
    def resume(self) -> bool:
        """Whether the run goes on where an earlier one on the volume stopped."""
        return yes(self.overrides, "resume")


def prepare(overrides: list[str], options: Options) -> Request:
    """Checks the name, configuration and data of a run, which takes a process for each GPU; UsageError for mistakes."""
    name = run_name_of(overrides)
    if name is None:
        raise UsageError("run_name is missing; name your run: python launcher.py --backend modal run_name=first.")
    gpus = int(options.gpu.partition(":")[2] or 1)
    if gpus > 1 and not any(text.lstrip("+").startswith("distributed.processes=") for text in overrides):
        overrides = [*overrides, f"distributed.processes={gpus}"]
    config: Any = compose(overrides)
    if config.distributed.processes != gpus:
        raise UsageError(f"distributed.processes={config.distributed.processes} needs as many GPUs, got {options.gpu}.")
    if config.eval_checkpoint is not None:
        raise UsageError("eval_checkpoint works here only; a run on Modal is evaluated by scripts/modal_app.py fid.")
    if config.device == "cpu":
        raise UsageError("device=cpu would leave the GPU idle; leave device out with --backend modal.")
    if config.output_dir != "outputs":
        raise UsageError(f"on Modal runs stand in outputs/ of the volume; leave out output_dir={config.output_dir}.")
    if made_here(Path("outputs") / config.run_name):
        raise UsageError(f"outputs/{config.run_name} is of a run on this machine; choose another run_name.")
    for plugin in config.plugins:
        place_of(plugin)
    paths = needed(OmegaConf.to_container(config))
    if not options.data_on_volume:
        missing(paths)
    return Request(config.run_name, overrides, options, digest(overrides), paths, list(config.plugins))


def digest(overrides: list[str]) -> str:
    """A short digest of the configuration that overrides compose to, the same for a run and its resumption."""
    config: Any = OmegaConf.to_container(compose(overrides))
    for key in ("resume", "overwrite"):
        del config[key]
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:16]


def needed(config: Any) -> list[str]:
    """The paths that a configuration reads, sorted; UsageError where one can't be the same on another machine."""
    found = sorted({text for key, text in _texts(config) if key != "output_dir" and _is_path(key, text)})
    for text in found:
        path = PurePosixPath(text)
        if path.is_absolute() or path.parts[0] not in FOLDERS or ".." in path.parts:
            raise UsageError(
                f"{text} can't be found on another machine; needed: a path below data/ or outputs/ of this folder, "
                "which stand on the volume too."
            )
    return [text for text in found if not any(text.startswith(f"{other}/") for other in found)]


def missing(paths: list[str]) -> None:
    """Raises UsageError for the first path that is not here."""
    for text in paths:
        if not Path(text).exists():
            raise UsageError(
                f"{text} is not here, so it can't be sent; put the data there, or add --data-on-volume where the "
                "volume holds it already."
            )


def _is_path(key: str, text: str) -> bool:
    return bool(text) and (key in NAMES or text.startswith(tuple(f"{folder}/" for folder in FOLDERS)))


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _texts(value, str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, key)
    elif isinstance(node, str):
        yield key, node
