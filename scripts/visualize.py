"""Draws what a run's checkpoint has learnt: all pictures that suit its data, in one folder.

usage: python scripts/visualize.py checkpoint=outputs/first [key=value ...]

  checkpoint=PATH        a checkpoint or a run's folder (its newest); its data are needed
  out=FOLDER             left out: pictures/ in the run's folder
  steps=4                of the sampler between one step and the ODE in comparison.png
  ema=true               true: the first average kept; false: the plain weights; 0.999: the average of that decay
  seed=0                 of noise and labels
  device=auto            auto, gpu or cpu

samples.png, comparison.png (one step, several, the ODE, from the same noise), denoising.gif; for points of the plane
also paths.png, field.png (models without classes) and jumps.png (average velocities); for images also neighbours.png;
curves.png where the run has metrics. Of puzzle models instead puzzles.png, held-out puzzles and the answers to them,
and puzzles.gif, how they come about step by step. `visualizers/vis_all.sh` does this for every run in outputs/.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import numpy as np

from runtime import device
from runtime.run import Run
from scripts import pictures
from scripts.arguments import at_least, command, parse, weights
from scripts.sampling import add_data, labels, opened
from solvers.dopri5 import Dopri5
from training import checkpoint
from training.experiment import load_run
from visualizers.curves import plot_curves, read_metrics
from visualizers.puzzles import PuzzlePicture


@dataclass
class Settings:
    """The keys of the command line."""

    checkpoint: str = "???"
    out: str | None = None
    steps: int = 4
    ema: str = "true"
    seed: int = 0
    device: str = "auto"


def draws(run: Run, seed: int, steps: int) -> dict[str, Callable[[str], Path]]:
    """What suits the run, by file name: functions of the path to write."""
    plane = len(run.pipeline.shape) == 1
    count = pictures.POINTS // 2 if plane else pictures.IMAGES
    noise = run.pipeline.noise(count, np.random.default_rng(seed))
    given = labels(run, count, seed, "uniform" if "label" in run.objective.conditions else None)
    samples = run.samples(count, seed, count if plane else 256, **given)
    smooth = Dopri5(rtol=1e-4, atol=1e-4)  # a jump would be a film of two frames

    def moving(path: str) -> Path:
        own, run.solver = run.solver, smooth
        try:
            return pictures.draw_trajectories(run, noise, given, path)
        finally:
            run.solver = own

    chosen: dict[str, Callable[[str], Path]] = {
        "samples.png": lambda path: pictures.draw_samples(run, samples, given, path),
        "comparison.png": lambda path: pictures.draw_comparison(run, noise, given, path, steps),
        "denoising.gif": moving,
    }
    if not plane:
        return chosen | {"neighbours.png": lambda path: pictures.draw_neighbours(run, samples, path)}
    chosen["paths.png"] = moving
    if not given:
        chosen["field.png"] = lambda path: pictures.draw_field(run, None, path)
    if pictures.has_average(run):
        chosen["jumps.png"] = lambda path: pictures.draw_jumps(run, noise, given, path)
    return chosen


def draw_curves(metrics: Path, path: str) -> Path | None:
    """The losses of training and held-out data over the steps, where the run has logged any."""
    known = read_metrics(metrics) if metrics.is_file() else {}
    shown = [name for name in ("train/loss", "train/velocity_mse", "eval/loss") if name in known]
    return plot_curves({"run": metrics}, shown, path, smoothing=0.8) if shown else None


def work(arguments: list[str]) -> None:
    """Draws every picture and prints its path."""
    given, _ = parse(arguments, Settings)
    at_least(2, steps=given.steps)
    at_least(0, seed=given.seed)
    device.select(given.device)  # type: ignore[arg-type]  # it refuses other words
    file = checkpoint.find(given.checkpoint)
    home = file.parent.parent
    folder = Path(given.out) if given.out else home / "pictures"
    run = load_run(file, weights(given.ema), data=False)
    if hasattr(run.objective, "rollout"):
        add_data(run, needed=True, label=None)
        print("\n".join(map(str, PuzzlePicture()(run, folder))))
    else:
        run = opened(str(file), weights(given.ema), None, {}, None)
        add_data(run, needed=True, label=None)
        pictures.check(run, "samples.png", "denoising.gif", None, None)
        for name, draw in draws(run, given.seed, given.steps).items():
            print(draw(str(folder / name)))
    if curves := draw_curves(home / "metrics.jsonl", str(folder / "curves.png")):
        print(curves)


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
