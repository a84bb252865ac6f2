"""Names and types of the top-level configuration keys; the groups are typed by what they build."""

import difflib
import re
from dataclasses import dataclass, field, fields
from typing import Any

from runtime.errors import UsageError

CHOICES = {
    "device": ("auto", "gpu", "cpu"),
    "precision": ("fp32", "bf16", "fp16"),
    "distributed.backend": ("auto", "ring", "nccl", "jaccl", "mpi"),
    "distributed.strategy": ("data", "fsdp"),
}


@dataclass
class Trackio:
    """The dashboard's record. log_every: steps between rows (also of metrics.jsonl)."""

    enabled: bool = True
    project: str = "mlx-lab"
    log_every: int = 50


@dataclass
class Distributed:
    """The processes that train together. backend: how they talk. strategy: whole weights in each, or shards."""

    processes: int = 1
    backend: str = "auto"
    strategy: str = "data"


@dataclass
class Train:
    """Every top-level key; configs/train.yaml explains them."""

    run_name: Any = "???"
    output_dir: str = "outputs"
    device: str = "auto"
    precision: str = "fp32"
    compile: bool = True
    seed: int = 0
    epochs: int | None = 10
    max_steps: int | None = None
    max_time: Any = None
    batch_size: int | None = None
    accumulate: int = 1
    eval_every: Any = "1e"
    save_every: Any = "1e"
    resume: bool = False
    overwrite: bool = False
    init_from: str | None = None
    eval_checkpoint: str | None = None
    memory_limit_gb: float | None = None
    plugins: list[str] = field(default_factory=list)
    trackio: Trackio = field(default_factory=Trackio)
    distributed: Distributed = field(default_factory=Distributed)
    dataloaders: Any = None
    model: Any = None
    network: Any = None
    loss: Any = None
    solver: Any = None
    optimizer: Any = None
    traces: Any = None
    evaluation: Any = None


KEYS = [f.name for f in fields(Train)]


def check_values(config: Any) -> None:
    """Raises UsageError where a top-level value is none of its choices or out of its range."""
    for key, valid in CHOICES.items():
        group, _, name = key.rpartition(".")
        value = config[group][name] if group else config[name]
        if value not in valid:
            near = difflib.get_close_matches(str(value), valid, 1, 0.4)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise UsageError(f"{key} must be one of {', '.join(valid)}, got {value!r}{hint}")
    for key in ("epochs", "max_steps", "batch_size", "accumulate"):
        if config[key] is not None and config[key] < 1:
            raise UsageError(f"{key} must be at least 1, got {config[key]}.")
    if config.trackio.log_every < 1:
        raise UsageError(f"trackio.log_every must be at least 1, got {config.trackio.log_every}.")
    if config.distributed.processes < 1:
        raise UsageError(f"distributed.processes must be at least 1, got {config.distributed.processes}.")
    if not 0 <= config.seed < 2**63:
        raise UsageError(f"seed must be 0 or more and below 2^63, got {config.seed}.")
    if config.resume and config.overwrite:
        raise UsageError("resume=true and overwrite=true contradict each other; give one of them.")


def check_run_name(name: Any) -> str:
    """The run name as text; UsageError unless it is made of letters, digits, ".", "_" and "-"."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise UsageError(f'run_name must be made of letters, digits, ".", "_" and "-" (not "." first), got {name!r}.')
    return name


def in_seconds(text: str | float | None, name: str = "max_time") -> float | None:
    """A duration in seconds: "90s", "15m", "2h" or a number; UsageError for anything else. name: whose it is."""
    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (str(text)[:-1], units[str(text)[-1]]) if str(text)[-1:] in units else (str(text), 1.0)
    try:
        seconds = float(number) * unit
    except ValueError as error:
        raise UsageError(f'{name} must be like "90s", "15m", "2h" or null, got {text!r}.') from error
    if not seconds > 0:
        raise UsageError(f"{name} must be positive, got {text!r}.")
    return seconds
