"""Trained puzzle models: opened from a run, or from the small file that is made of it for use alone.

usage: python scripts/puzzle_models.py checkpoint=outputs/sudoku out=models/weights/trm_sudoku.safetensors

  checkpoint=PATH  a checkpoint or a run's folder (its newest)
  out=PATH         the file to write: weights in 16 bits, the model's config, a checksum
  ema=true         true: the first average kept; false: the plain weights; 0.999: the average of that decay
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import mlx.nn as nn

from runtime import device as devices
from runtime.errors import UsageError
from runtime.run import Run
from scripts import exports
from scripts.arguments import command
from training import exported
from training.experiment import load_run

SHIPPED = {"sudoku": exports.WEIGHTS / "trm_sudoku.safetensors"}
KIND = "puzzle_model"  # in the metadata of a file for use alone


def load(given: str | Path, device: str = "auto", ema: bool | float = True) -> tuple[nn.Module, dict]:
    """The model in a run's checkpoint, in an exported file or a shipped one ("sudoku"), and how it was `trained`.

    device: auto, gpu or cpu. ema: of a run, True for the first average kept, a decay, or False for the plain weights.
    Raises UsageError for a run of anything else, and where no weights are shipped.
    """
    devices.select(device)  # type: ignore[arg-type]  # it refuses other words
    file = exports.found(given, SHIPPED)
    if (opened := exported.opened(file, KIND)) is not None:
        model, meta = opened
        return model, {"steps": meta["steps"], "q_continue": meta.get("q_continue", False)}
    run = load_run(file, ema, data=False)
    return run.model, trained(run)


def trained(run: Run) -> dict[str, Any]:
    """A run's supervision steps and whether it has HRM's q_continue; UsageError for a run of anything but puzzles."""
    objective: Any = run.objective
    if not hasattr(objective, "rollout"):
        raise UsageError(f"needed: a run of loss=act, a model of puzzles; this one's is {type(objective).__name__}.")
    return {"steps": objective.steps, "q_continue": objective.q_continue}


def export(given: str | Path, out: str | Path, ema: bool | float = True) -> None:
    """Writes the model of a run for use alone (training/exported.py) with how it was trained."""
    run = load_run(given, ema, data=False)
    exported.export(run, out, KIND, **trained(run))


def work(arguments: list[str]) -> None:
    """Exports one model and says how large the file is."""
    exports.work(arguments, export)


if __name__ == "__main__":
    sys.exit(command(work, __doc__ or "", sys.argv[1:]))
