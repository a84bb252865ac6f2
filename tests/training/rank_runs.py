"""Runs of the launcher's `train` by two processes, one after another in the same two, for test_rank_runs.py."""

import json
import os
import signal
import sys
from pathlib import Path

import launcher  # first: it loads the fast BLAS

# isort: split
import mlx.core as mx
import numpy as np

from runtime.errors import UsageError
from runtime.op import Objective
from scripts.compose import compose
from traces.trace import Trace
from training.estimator import Interrupted

SMALL = [
    "run_name=r", "model.hidden=8", "model.depth=1", "dataloaders.train_data.size=640", "epochs=null",
    "dataloaders.eval_data.size=100", "evaluation=none", "traces.evaluation.pictures=null", "trackio.log_every=1",
    "eval_every=10s", "save_every=5s", "max_steps=20", "traces.progress.quiet=true", "device=cpu",
    "trackio.enabled=false", "compile=false", "plugins=[tests]",
    "loss._target_=tests.training.rank_runs.Squares", "optimizer.clip=0.5",
    "optimizer.learning_rate=0.03", "optimizer.schedule=null",
    *[f"~loss.{key}" for key in ("path", "times", "prediction", "coupling", "coupling_span", "conditions",
                                 "label_dropout", "guidance")],
]  # fmt: skip
OPTIONS = {
    "plain": [],
    "accumulated": ["accumulate=2"],
    "stopped early": ["max_steps=40", "+traces.early._target_=traces.adapt.early_stopping.EarlyStopping",
                      "+traces.early.baseline=1e-9", "+traces.early.patience=2"],
    "slower": ["+traces.slower._target_=traces.adapt.reduce_lr_on_plateau.ReduceLROnPlateau",
               "+traces.slower.model=model", "+traces.slower.patience=1",
               "+traces.slower.best_mode=max", "eval_every=5s"],
}  # fmt: skip
CARRY = ["loss._target_=tests.training.rank_runs.Carrying"]


class Squares(Objective):
    """The model learns the squares of the data; nothing in it is random."""

    metrics = extras = ("error",)

    def __call__(self, model, batch, ctx):
        x = batch["x"]
        error = (model(x, times=mx.zeros((len(x), 2))) - x.square()).square().mean(axis=1)
        mask = batch.get("mask", mx.ones(len(x)))
        return (error * mask).sum() / mask.sum(), {"error": mx.stop_gradient(error)}


class Carrying(Squares):
    """Keeps the sum of the rows seen."""

    carry = ("seen",)

    def __call__(self, model, batch, ctx):
        loss, extra = super().__call__(model, batch, ctx)
        return loss, extra | {"seen": batch.get("seen", 0.0) + batch["x"].sum(axis=1)}

    def initial_carry(self, model, batch):
        return {"seen": mx.zeros(len(batch["x"]))}


class At(Trace):
    """In process `rank`, after a step: raises, or sends itself a signal."""

    everywhere = True

    def __init__(self, step: int, rank: int, number: int = 0):
        super().__init__(mode="train")
        self.step, self.rank, self.number = step, rank, number

    def on_batch_end(self, data):
        if (self.estimator.step, self.estimator.world.rank) == (self.step, self.rank):
            if not self.number:
                raise ValueError("planted")
            os.kill(os.getpid(), self.number)


def run(folder: Path, *more: str, rows: int = 16) -> str:
    """Why the run ended; rows: of a process."""
    overrides = [*SMALL, f"batch_size={rows}", *more]
    try:
        return launcher.train(compose(overrides), folder, overrides).reason or ""
    except Interrupted as stop:
        return f"signal {stop.signal}"


def runs(folder: Path) -> dict[str, str]:
    """What two processes do; `folder` holds "killed" and "carried by one" already."""
    said = {name: run(folder / name, *options) for name, options in OPTIONS.items()}
    said["killed"] = run(folder / "killed", "resume=true")
    said["timed out"] = run(folder / "timed out", "max_steps=100000", "max_time=0.01")
    said["stopped"] = run(folder / "stopped", *at(7, 1, signal.SIGTERM), "save_every=null")
    said["went on"] = run(folder / "stopped", "resume=true", "save_every=null")
    said["carried"] = run(folder / "carried", *CARRY)
    said["carried on"] = run(folder / "parts", *CARRY, "max_steps=7")
    said["carried to the end"] = run(folder / "parts", *CARRY, "resume=true")
    said["carried by one"] = run(folder / "carried by one", *CARRY, "resume=true")
    try:
        run(folder / "other", f"seed={os.environ['MLX_RANK']}")
    except UsageError as error:
        said["other seed"] = str(error)
    return said


def at(step: int, rank: int, number: int = 0) -> list[str]:
    """Overrides that add `At`."""
    return [f"+traces.at={{_target_: tests.training.rank_runs.At, step: {step}, rank: {rank}, number: {number}}}"]


def main() -> None:
    """Runs all, in the folder named on the command line."""
    folder = Path(sys.argv[1])
    np.seterr(all="raise")
    (folder / f"said{os.environ['MLX_RANK']}.json").write_text(json.dumps(runs(folder)))


if __name__ == "__main__":
    main()
