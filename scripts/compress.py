"""Makes a smaller file of a run's weights, fewer bits or without the smallest of them, and tells what quality it costs.

usage: python scripts/compress.py checkpoint=outputs/first bits=8 [key=value ...]

  checkpoint=PATH      a checkpoint or a run's folder (its newest)
  bits=8               of the weights of linear layers and embeddings, 2 to 8 (not 7); convolutions keep theirs. TRM's
                       and HRM's have few bits in the file only, and are floats again once it is opened
  group=64             numbers of a row that share a scale: 32, 64 or 128; layers whose rows don't divide keep theirs
  prune=0.5            share of all weights to set to 0, the least of them over all layers, before they lose bits
  out=FILE             left out: compressed.safetensors in the run's folder
  ema=true             true: the first average kept; false: the plain weights; 0.999: the average of that decay
  evaluate=true        the run's own evaluation of both, from the same seeds; false: none
  evaluation=points    an option of configs/evaluation with its defaults; left out: the run's own
  evaluation.count=500 any key of the evaluation
  seed=1               of the draws of the evaluation; left out: as in training
  device=auto          auto, gpu or cpu

The file opens wherever a checkpoint does: checkpoint=FILE of evaluate.py, sample.py and others. It can't be trained on.
Pruned arrays are kept as a bit for each number and the numbers that are not 0.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
from omegaconf import DictConfig

from runtime import device
from runtime.errors import UsageError
from runtime.slots import first_paths, snapshot
from scripts import evaluate
from scripts.arguments import at_least, command, ends_in, parse, weights
from training import checkpoint, compressed
from training.experiment import evaluate_run, open_learner


@dataclass
class Settings(evaluate.Settings):
    """The keys of the command line: evaluate.py's and those of the file."""

    bits: int | None = None
    group: int = 64
    prune: float | None = None
    evaluate: bool = True


def compress(file: Path, out: Path, given: Settings) -> str:
    """Writes the compressed file; what was done, in a line. Raises UsageError for a file that is one already."""
    if compressed.META in checkpoint.metadata(file):
        raise UsageError(f"{file} is compressed already; needed: a run's checkpoint.")
    file, known, config, learns = open_learner(file, weights(given.ema))
    first, whole = first_paths(learns.models), snapshot(learns.models)
    before, said = sum(array.nbytes for path, array in whole.items() if first[path] == path), []
    pruned = compressed.prune(learns.models, given.prune) if given.prune is not None else []
    if pruned:
        said.append(f"{given.prune:.4g} of the weights of {len(pruned)} arrays set to 0")
    layers, few = [], []
    if given.bits is not None:
        layers = compressed.quantise(learns.models, given.bits, given.group)
        few = [f"models.{path}" for path in compressed.matrices(learns.models, given.group)]
        counts = {"layers": len(layers), "matrices": len(few)}
        said += [f"{count} {what} in {given.bits} bits" for what, count in counts.items() if count]
    state = snapshot(compressed.kept(learns.models, learns.network))
    left = [path for path in (f"models.{path}" for path in pruned) if path in state and path not in few]  # still floats
    done = {"bits": given.bits, "group": given.group, "layers": layers, "prune": given.prune, "ema": given.ema}
    meta = {name: known[name] for name in ("run_name", "config", "step", "provenance") if name in known}
    arrays = compressed.packed(state, left, few, given.bits or 8, given.group)
    checkpoint.save(out, arrays, meta | {compressed.META: done})
    size = out.stat().st_size
    sizes = f"{before / 1e6:.3f} MB of weights before, {size / 1e6:.3f} MB after ({size / before:.1%})"
    return f"{out}: {', '.join(said)}; {sizes}; the checkpoint, with its training: {file.stat().st_size / 1e6:.3f} MB"


def table(before: dict[str, float], after: dict[str, float]) -> list[str]:
    """A line for each metric: before, after, and the change."""
    wide = max(map(len, before), default=0)
    lines = [f"{'metric':<{wide}} {'before':>12} {'after':>12} {'change':>12}"]
    for name, value in before.items():
        if not name.endswith("_floor"):
            lines.append(f"{name:<{wide}} {value:>12.5g} {after[name]:>12.5g} {after[name] - value:>+12.3g}")
    return lines


def work(arguments: list[str]) -> None:
    """Compresses, evaluates both and prints the table."""
    given, changes = parse(arguments, Settings)
    at_least(0, seed=given.seed)
    ends_in((".safetensors",), out=given.out)
    if given.bits is None and given.prune is None:
        raise UsageError("nothing was asked for; needed: bits=8, prune=0.5 or both.")
    device.select(given.device)  # type: ignore[arg-type]  # it refuses other words
    file = checkpoint.find(given.checkpoint)
    out = Path(given.out) if given.out else checkpoint.home(file) / "compressed.safetensors"
    print(compress(file, out, given))
    if given.evaluate:

        def asked(config: DictConfig) -> Any:
            return evaluate.changed(config, given, changes)

        before, after = evaluate_run(file, weights(given.ema), asked)[0], evaluate_run(out, True, asked)[0]
        print("\n".join(table(before, after)))


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
