"""Evaluates a checkpoint, from the file alone; no run's folder is written to, and no dashboard.

usage: python scripts/evaluate.py checkpoint=outputs/first [key=value ...]

  checkpoint=PATH        a checkpoint or a run's folder (its newest)
  evaluation=points      an option of configs/evaluation with its defaults; left out: the run's own
  evaluation.count=2000  any key of the evaluation; evaluation.steps=[1,2,50] tries the run's solver with each
  solver=heun            an option of configs/solver; left out: the run's own; instead of evaluation.solvers, .steps
  solver.steps=20        any key of the solver
  ema=true               true: the first average kept; false: the plain weights; 0.999: the average of that decay
  seed=1                 of the draws of the evaluation; left out: as in training
  out=metrics.json       also write the metrics there
  device=auto            auto, gpu or cpu
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
from omegaconf import DictConfig, OmegaConf

from launcher import table
from runtime import device
from scripts.arguments import at_least, change, command, ends_in, parse, weights
from training import checkpoint
from training.experiment import evaluate_run
from visualizers.canvas import write


@dataclass
class Settings:
    """The keys of the command line."""

    checkpoint: str = "???"
    evaluation: str | None = None
    solver: str | None = None
    ema: str = "true"
    seed: int | None = None
    out: str | None = None
    device: str = "auto"


def changed(config: DictConfig, given: Settings, changes: dict[str, Any]) -> DictConfig:
    """A run's config with the evaluation, solver and seed asked for."""
    change(config, "solver", given.solver, changes)
    change(config, "evaluation", given.evaluation, changes)
    keys = list(config.evaluation or ())
    if given.solver or any(key.startswith("solver.") for key in changes):
        for several in {"steps", "solvers"} & {*keys}:
            if f"evaluation.{several}" not in changes:
                config.evaluation[several] = None if several == "solvers" else []
    if given.seed is not None:
        config.seed = given.seed
        if "seed" in keys and "evaluation.seed" not in changes:
            config.evaluation.seed = given.seed
    return config


def work(arguments: list[str]) -> None:
    """Evaluates, prints the table and writes the file asked for."""
    given, changes = parse(arguments, Settings)
    at_least(0, seed=given.seed)
    ends_in((".json",), out=given.out)
    device.select(given.device)
    ema = weights(given.ema)
    metrics, experiment = evaluate_run(given.checkpoint, ema, lambda config: changed(config, given, changes))
    print("\n".join(table(metrics)))
    if given.out is not None:
        config: Any = OmegaConf.to_container(experiment.config, resolve=True)
        record = {
            "checkpoint": str(checkpoint.find(given.checkpoint)), "run_name": config["run_name"],
            "step": experiment.estimator.step, "ema": ema, "seed": config["seed"], "solver": config["solver"],
            "evaluation": config["evaluation"], "metrics": metrics,
        }  # fmt: skip
        write(given.out, lambda path: path.write_text(json.dumps(record, indent=2) + "\n"))
        print(f"metrics: {given.out}")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
