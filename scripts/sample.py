"""Draws samples from a checkpoint.

usage: python scripts/sample.py checkpoint=outputs/first [key=value ...]

  checkpoint=PATH        a checkpoint or a run's folder (its newest); only data are needed besides, and those rarely
  num_samples=1000
  out=samples.npz        arrays samples, noise, label (if any) and info, a JSON string: checkpoint, step, solver, seed,
                         evaluations (of the field for each sample; the largest where batches differ), ...
  solver=heun            an option of configs/solver with its defaults; left out: the run's own
  solver.steps=20        any key of the solver
  steps=4                short for solver.steps: a MeanFlow model (solver=average) takes so many jumps
  jumps=0,0.6,1          the times the solver goes through, instead of steps of equal length
  seed=0                 of noise and labels; the same seed gives the same file
  ema=true               true: the first average kept; false: the plain weights; 0.999: the average of that decay
  label=3                conditional models; -1: no class; uniform: all classes in turn; left out: drawn in the data's
                         own proportions
  guidance=2.0           classifier-free guidance scale; an evaluation then takes two passes of the model (one, where it
                         has guidance as a condition: loss=imf)
  guided_from=0.35       start times from here
  guided_to=0.6          to here are guided by such a model; left out: the run's own
  batch=256              sampled at once; left out: 256 images or 10000 points
  picture=samples.png    points beside data, or a grid of images, a row a class where there are classes
  comparison=steps.png   one step, several (steps=, or 4) and an ODE solver on the same network, from the same noise
  neighbours=near.png    images beside the training images nearest in pixels
  trajectories=flow.gif  from noise to samples; also .mp4 (needs the extra `video`) and .png
  field=field.png        velocities over the plane
  device=auto            auto, gpu or cpu
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import numpy as np
from omegaconf import OmegaConf

from runtime import device
from runtime.errors import UsageError
from scripts import pictures
from scripts.arguments import at_least, command, ends_in, parse, weights
from scripts.sampling import Counted, add_data, jumps_of, label_of, labels, opened
from training import checkpoint
from visualizers.canvas import write


@dataclass
class Settings:
    """The keys of the command line."""

    checkpoint: str = "???"
    num_samples: int = 1000
    out: str = "samples.npz"
    solver: str | None = None
    seed: int = 0
    ema: str = "true"
    steps: int | None = None
    jumps: str | None = None
    label: str | None = None
    guidance: float | None = None
    guided_from: float | None = None
    guided_to: float | None = None
    batch: int | None = None
    picture: str | None = None
    comparison: str | None = None
    neighbours: str | None = None
    trajectories: str | None = None
    field: str | None = None
    device: str = "auto"


def work(arguments: list[str]) -> None:
    """Samples, writes the file and the pictures asked for, and prints a line for each."""
    given, changes = parse(arguments, Settings)
    at_least(1, num_samples=given.num_samples, batch=given.batch, steps=given.steps)
    at_least(0, seed=given.seed)
    ends_in((".npz",), out=given.out)
    ends_in((".png",), picture=given.picture, field=given.field, comparison=given.comparison,
            neighbours=given.neighbours)  # fmt: skip
    ends_in((".gif", ".mp4", ".png"), trajectories=given.trajectories)
    jumps, label = jumps_of(given.jumps), label_of(given.label)
    if given.steps is not None:
        if jumps:
            raise UsageError(f"steps={given.steps} and jumps={given.jumps} say the same twice; give one of them.")
        changes["solver.steps"] = given.steps
    device.select(given.device)  # type: ignore[arg-type]  # it refuses other words
    file = checkpoint.find(given.checkpoint)
    run = opened(str(file), weights(given.ema), given.solver, changes, given.guidance, given.guided_from,
                 given.guided_to)  # fmt: skip
    plane = run.config.dataloaders.shape == [2]
    beside_data = plane and bool(given.picture or given.field or given.comparison)
    add_data(run, beside_data or given.neighbours is not None, label)
    pictures.check(run, given.picture or given.comparison, given.trajectories, given.field, label)
    if given.neighbours:
        pictures.check_neighbours(run)

    shape, images = tuple(run.pipeline.shape), len(run.pipeline.shape) == 3
    batch = given.batch or (256 if images else 10_000)
    conditions = labels(run, given.num_samples, given.seed, label)
    noise = run.pipeline.noise(given.num_samples, np.random.default_rng(given.seed))  # as Run.samples draws it
    solver = Counted(run.solver, jumps)
    began = time.perf_counter()
    samples = run.samples(given.num_samples, given.seed, batch, solver, **conditions)
    seconds = time.perf_counter() - began

    evaluations = max(solver.counts, default=0)
    info = {
        "checkpoint": str(file), "run_name": run.config.run_name, "step": run.step, "ema": weights(given.ema),
        "solver": OmegaConf.to_container(run.config.solver, resolve=True), "evaluations": evaluations, "jumps": jumps,
        "guidance": given.guidance, "guided_from": given.guided_from, "guided_to": given.guided_to,
        "seed": given.seed, "batch": batch,
    }  # fmt: skip
    arrays = {"samples": samples, "noise": noise, **conditions, "info": np.array(json.dumps(info))}
    write(given.out, lambda path: np.savez(path, **arrays))
    rate = f"{given.num_samples / seconds:,.0f} {'images' if images else 'samples'}/s"
    print(f"{given.num_samples:,} samples {shape} by {type(run.solver).__name__}, NFE {evaluations}, "
          f"{seconds:.2f} s, {rate}: {given.out}")  # fmt: skip
    if given.picture:
        print(f"picture: {pictures.draw_samples(run, samples, conditions, given.picture)}")
    if given.comparison:
        drawn = pictures.draw_comparison(run, noise, conditions, given.comparison, max(given.steps or 4, 2))
        print(f"comparison: {drawn}")
    if given.neighbours:
        print(f"neighbours: {pictures.draw_neighbours(run, samples, given.neighbours)}")
    if given.trajectories:
        print(f"trajectories: {pictures.draw_trajectories(run, noise, conditions, given.trajectories, jumps)}")
    if given.field:
        print(f"field: {pictures.draw_field(run, label, given.field)}")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
