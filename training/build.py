"""Models with their optimizers, and their weights in files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from runtime.errors import UsageError
from runtime.scheduler import Scheduler
from runtime.slots import restore, snapshot
from training.group import Maker, make_optimizer

Many = Any  # one module, or a list of them


def build(
    model_fn: Callable[[], Many],
    optimizer_fn: Maker | Scheduler | None | Sequence[Maker | Scheduler | None] = None,
    weights_path: str | Path | Sequence[str | Path | None] | None = None,
    model_name: str | Sequence[str] | None = None,
) -> Many:
    """The module that `model_fn` makes, with an optimizer for `UpdateOp`; a list where it makes several.

    optimizer_fn: a name ("adam", "sgd", ...: PyTorch's default settings), a callable that gives an mlx optimizer
    (`lambda: optim.Adam(1e-3)`), a Scheduler of such by epochs, or None; one for each model. model_name: under which a
    network and its checkpoints keep the model (default: model, model1, ... in the order of the network's ops).
    weights_path: a file of `save_model`.
    Raises UsageError for unknown optimizers and where counts differ.
    """
    if isinstance(model_fn, nn.Module) or not callable(model_fn):
        raise UsageError(f"model_fn must be a function that makes a module, such as lambda: LeNet(...); got "
                         f"{type(model_fn).__name__}.")  # fmt: skip
    made = model_fn()
    several = isinstance(made, list | tuple)
    models: list[nn.Module] = list(made) if several else [made]
    makers = _spread(optimizer_fn, len(models), "optimizer_fn")
    names = _spread(model_name, len(models), "model_name")
    paths = _spread(weights_path, len(models), "weights_path")
    for model, maker, name, path in zip(models, makers, names, paths, strict=True):
        if not isinstance(model, nn.Module):
            raise UsageError(f"model_fn must give an mlx.nn.Module or a list of them, got {type(model).__name__}.")
        for one in maker.values if isinstance(maker, Scheduler) else [maker]:
            if one is not None:
                make_optimizer(one, parameters=model.trainable_parameters())  # a wrong one is refused here
        attach(model, maker, name)
        if path is not None:
            load_model(model, path)
        mx.eval(model.parameters())
    return models if several else models[0]


def attach(model: nn.Module, optimizer_fn: Maker | Scheduler | None, name: str | None = None) -> None:
    """Notes on a model which optimizer trains it and its name."""
    model.optimizer_fn, model.model_name = optimizer_fn, name


def _spread(given: Any, count: int, what: str) -> list:
    if isinstance(given, list | tuple):
        if len(given) != count:
            raise UsageError(f"model_fn made {count} models; {what} must have as many entries, got {len(given)}.")
        return list(given)
    if given is not None and count > 1:
        raise UsageError(f"model_fn made {count} models; {what} must be a list of {count}, got {given!r}.")
    return [given] * count


def save_model(model: nn.Module, path: str | Path) -> Path:
    """Writes a model's arrays, statistics included, to a safetensors file and returns its path."""
    path = Path(path)
    path = path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial.safetensors")
    mx.save_safetensors(str(temporary), snapshot(model))
    return temporary.replace(path)


def load_model(model: nn.Module, path: str | Path) -> None:
    """Reads what `save_model` wrote; raises UsageError where the file is absent, damaged or of another model."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no file of weights {path}.")
    try:
        arrays: Any = mx.load(str(path))
        mx.eval(arrays)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{path} is not a whole safetensors file: {error}") from error
    restore(model, arrays, str(path))
