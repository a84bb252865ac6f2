"""What a configuration builds, as tables, without training it: no folder is made and nothing of the models is computed.

usage: python scripts/summarize.py [RUN] [depth=N] [group=option ...] [key=value ...]

  model=unet dataloaders=digits   overrides as the launcher takes them; a run_name isn't needed
  outputs/first                   a run's folder or a YAML file, instead of overrides
  depth=2                         levels of modules shown below each model; left out: all

Output shapes are those of one evaluation step on the first training batch; without the data set they are left out.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import mlx.core as mx
from omegaconf import DictConfig

from runtime import device
from runtime.columns import columns
from runtime.config_files import load_config
from runtime.errors import UsageError
from runtime.model_summary import in_bytes, output_shapes, print_model_summary
from runtime.trees import flatten
from runtime.upload import to_device
from scripts.arguments import command
from scripts.compose import compose
from training.experiment import Experiment, assemble
from training.forward import judged_arrays
from training.learner import learner


def read(arguments: list[str]) -> tuple[DictConfig, int | None]:
    """The config that is meant and the depth; UsageError for what can't be read."""
    depths = [text.removeprefix("depth=") for text in arguments if text.startswith("depth=")]
    if not all(text.isdigit() for text in depths):
        raise UsageError(f"depth must be 0 or more, got {depths[-1]!r}.")
    given = [text for text in arguments if not text.startswith("depth=")]
    folders, overrides = [text for text in given if "=" not in text], [text for text in given if "=" in text]
    if len(folders) > 1 or (folders and overrides):
        raise UsageError(f"needed: one run's folder or overrides, got {' '.join(given)}.")
    config = load_config(folders[0]) if folders else compose(["run_name=summary", *overrides])
    return config, int(depths[-1]) if depths else None


def one_step(experiment: Experiment) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """The first training batch, and what every module returns in an evaluation step on it, by model; not computed."""
    estimator, shapes = experiment.estimator, {}
    batch = to_device(estimator.pipeline.first("train", estimator.pipeline.get_ds_ids("train")[0]))
    key = mx.array([0, 0], mx.uint32)
    with output_shapes(experiment.learner.models) as found:
        estimator.forward["eval"](judged_arrays(experiment.network), batch, key, experiment.network.get_loss_keys())
    for path, shape in found.items():
        name, _, inner = path.partition(".")
        shapes.setdefault(name, {})[inner] = shape
    return batch, shapes


def state_of(experiment: Experiment) -> list[tuple[str, ...]]:
    """Rows of what a training keeps: weights, optimizers' states and averages, each array once."""
    state, seen, rows = experiment.estimator.train_step.state, set(), []
    updates = [update.state for update in experiment.network.updates]
    parts = {"models": state["models"], "optimizers": [own["optimizers"] for own in updates],
             "averages": [own["ema"] for own in updates], "the rest": state}  # fmt: skip
    for name, part in parts.items():
        new = {id(array): array for array in flatten(part).values() if id(array) not in seen}
        seen |= set(new)
        count, size = sum(a.size for a in new.values()), sum(a.nbytes for a in new.values())
        rows.append((name, f"{count:,}", in_bytes(size)))
    return [("training state", "numbers", "memory"), *rows]


def work(arguments: list[str]) -> None:
    """Composes, builds and prints."""
    config, depth = read(arguments)
    device.select(config.device, config.memory_limit_gb)
    config.compile, config.resume = False, False
    experiment, batch, shapes = None, {}, {}
    try:
        experiment = assemble(config)
        batch, shapes = one_step(experiment)
        learns = experiment.learner
    except (UsageError, OSError) as error:
        learns = learner(config) if experiment is None else experiment.learner
        print(f"no output shapes: {error}\n")
    for name, model in learns.models.items():
        print(f"{name}: {type(model).__name__}, {learns.trains}")
        print_model_summary(model, depth=depth, shapes=shapes.get(name, {}))
        print()
    if batch:
        keys = (f"{name} {tuple(a.shape)} {str(a.dtype).removeprefix('mlx.core.')}" for name, a in batch.items())
        print(f"batch: {', '.join(keys)}")
    if experiment is not None:
        print("\n".join(columns(state_of(experiment))))


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
