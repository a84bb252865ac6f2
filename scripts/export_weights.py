"""Writes a run's weights as a plain safetensors file, with the axes of PyTorch's layers or of MLX's.

usage: python scripts/export_weights.py checkpoint=outputs/first out=first.safetensors [key=value ...]

  checkpoint=PATH  a checkpoint or a run's folder (its newest)
  out=PATH         the file to write
  layout=pytorch   pytorch: kernels of convolutions have their channels in front of the spatial axes; mlx: as here
  ema=true         true: the first average kept; false: the plain weights; 0.999: the average of that decay

Names are the paths of this repository's modules (a run of several models puts the model's name in front); a model
with embeddings of puzzles has them as table.rows. Linear layers, norms and embeddings are the same in both layouts. Our
models see images as (B, H, W, C): in PyTorch permute to (B, H, W, C) before a flattening, then the linear layer after
it needs no change. `load_state_dict` takes the file's arrays where the torch module has the same names.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import mlx.core as mx
import mlx.nn as nn

from models.convolution import Convolution
from runtime import device
from runtime.errors import UsageError
from runtime.trees import flatten
from scripts.arguments import command, ends_in, parse, weights
from training import checkpoint
from training.experiment import load_run
from training.exported import ROWS
from visualizers.canvas import write

LAYOUTS = ("pytorch", "mlx")
PLAIN = (Convolution, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # of ours the transposed ones too: the input channels come first
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass
class Settings:
    """The keys of the command line."""

    checkpoint: str = "???"
    out: str = "???"
    layout: str = "pytorch"
    ema: str = "true"


def arrays_of(model: nn.Module, layout: str) -> dict[str, mx.array]:
    """The model's arrays by path, kernels of convolutions in the axes of a layout."""
    arrays = flatten(model.parameters())
    for path, layer in model.named_modules() if layout == "pytorch" else ():
        name = f"{path}.weight".removeprefix(".")
        if isinstance(layer, PLAIN):  # (O, *kernel, I) -> (O, I, *kernel)
            arrays[name] = mx.moveaxis(arrays[name], -1, 1)
        elif isinstance(layer, TRANSPOSED):  # (O, *kernel, I) -> (I, O, *kernel)
            arrays[name] = mx.moveaxis(arrays[name], -1, 0)
    if (table := getattr(model, "table", None)) is not None:
        arrays[ROWS] = table.state["rows"]
    return arrays


def named(models: Mapping[str, nn.Module], layout: str) -> dict[str, mx.array]:
    """The arrays of several models, each below the model's name; those of a single one by their own paths."""
    found = {name: arrays_of(model, layout) for name, model in models.items()}
    if len(found) == 1:
        return next(iter(found.values()))
    return {f"{name}.{path}": array for name, arrays in found.items() for path, array in arrays.items()}


def work(arguments: list[str]) -> None:
    """Writes the file and says what is in it."""
    given, _ = parse(arguments, Settings)
    ends_in((".safetensors",), out=given.out)
    if given.layout not in LAYOUTS:
        raise UsageError(f"layout must be {' or '.join(LAYOUTS)}, got {given.layout!r}.")
    device.select("cpu")  # nothing is computed
    file = checkpoint.find(given.checkpoint)
    run = load_run(file, weights(given.ema), data=False)
    arrays = {path: mx.contiguous(array) for path, array in named(run.models, given.layout).items()}
    facts = {"format": "pt" if given.layout == "pytorch" else "mlx", "run_name": str(run.config.run_name),
             "step": str(run.step), "ema": given.ema}  # fmt: skip
    mx.eval(arrays)
    write(given.out, lambda path: mx.save_safetensors(str(path), arrays, facts))
    count = sum(array.size for array in arrays.values())
    print(f"{given.out}: {len(arrays)} arrays, {count:,} numbers, {Path(given.out).stat().st_size / 1e6:.1f} MB, "
          f"{given.layout} layout, step {run.step:,}")  # fmt: skip


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
