"""From a config to objects: the one place that knows which group becomes what."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from omegaconf import DictConfig, OmegaConf

from runtime.errors import UsageError
from runtime.instantiate import build
from runtime.op import Objective, ObjectiveOp
from runtime.run import Run
from runtime.slots import restore, snapshot, write
from training import checkpoint
from training.estimator import Estimator
from training.forward import judged
from training.network import Network


@dataclass
class Experiment:
    """What a config describes, built: data, model, objective, the network that trains, the solver, the estimator."""

    config: DictConfig
    pipeline: Any
    model: nn.Module
    objective: Objective
    network: Network
    solver: Any
    estimator: Estimator

    def view(self, folder: Path | None = None) -> Run:
        """The run as evaluators see it; call inside `judged(network)` for the averaged weights."""
        step = self.estimator.step
        return Run(self.config, self.model, self.objective, self.pipeline, self.solver, folder, step)

    def start_from(self, path: str) -> None:
        """Takes the (averaged) weights of another run's checkpoint, fine-tuning; averages start from them too."""
        source = load_run(path, data=False)
        restore(self.model, snapshot(source.model), path)
        for update in self.network.updates:
            update.averages.reset(update.leaves())


def assemble(config: DictConfig) -> Experiment:
    """Builds everything that a config names; raises UsageError for what does not fit.

    Initial weights are a function of the seed alone.
    """
    plugins = tuple(config.plugins)

    def make(node: Any, *args: Any, **extra: Any) -> Any:
        return build(node, *args, plugins=plugins, **extra)

    pipeline = make(config.dataloaders)
    mx.random.seed(config.seed)  # layers draw their initial weights from the global state, only here
    model = make(config.model)
    objective = make(config.loss)
    objective.check(model)
    pipeline.add_ops(objective.host_ops())
    network = Network([ObjectiveOp(model, objective), make(config.optimizer, model)])
    mx.eval(model.parameters())
    traces = []
    for name, node in (config.traces or {}).items():
        if node is not None:
            traces.append(make(node))
            traces[-1].name = name
    estimator = Estimator(
        pipeline, network, config.epochs, traces, max_steps=config.max_steps, max_time=in_seconds(config.max_time),
        seed=config.seed, accumulate=config.accumulate, precision=config.precision, compile=config.compile,
        eval_every=config.eval_every,
    )  # fmt: skip
    solver = make(config.solver)
    if solver is not None and solver.average:
        objective.average_velocity(model)  # says so now, not after the training, where there is none
    experiment = Experiment(config, pipeline, model, objective, network, solver, estimator)
    for trace in traces:
        trace.experiment = experiment
    return experiment


def load_run(path: str | Path, ema: float | bool = True, data: bool = True) -> Run:
    """The run in a checkpoint (a file or a run folder): model with its weights, config, data, objective, solver.

    ema: True for the first average kept, a decay, or False for the plain weights. data: False leaves the data set
    unread (`pipeline` is then None). Everything but the data comes from the file alone.
    """
    file = checkpoint.find(path)
    arrays, meta = checkpoint.load(file)
    config = OmegaConf.create(meta["config"])
    plugins = tuple(config.plugins)
    model, objective = build(config.model, plugins=plugins), build(config.loss, plugins=plugins)
    solver = build(config.solver, plugins=plugins)
    weights = {name.removeprefix("models.model."): a for name, a in arrays.items() if name.startswith("models.model.")}
    restore(model, weights, str(file))
    kept: list[float] = list(config.optimizer.get("ema") or ())
    if ema is not False and (kept or ema is not True):
        write(model, _average(arrays, kept[0] if ema is True else ema, kept))
    model.train(False)
    mx.eval(model.parameters())
    pipeline = build(config.dataloaders, plugins=plugins) if data else None
    return Run(config, model, objective, pipeline, solver, file.parent.parent, meta["step"], meta)


def evaluate_run(
    path: str | Path, ema: float | bool = True, change: Callable[[DictConfig], DictConfig] = lambda config: config
) -> tuple[dict[str, float], Experiment]:
    """Rebuilds a run from its checkpoint alone and evaluates it: held-out loss and the evaluator of its config.

    ema: the weights to judge, as for `load_run`. change: alters the config first (another evaluation or solver).
    """
    file = checkpoint.find(path)
    arrays, meta = checkpoint.load(file)
    config = change(OmegaConf.create({**meta["config"], "traces": {}, "resume": False}))
    built: Any = build(config.evaluation, plugins=tuple(config.plugins))
    evaluator: Any = built if "_target_" in config.evaluation else None  # evaluation=none is a mapping without
    experiment = assemble(config)
    experiment.estimator.load(arrays, meta, str(file))
    if ema is not True:
        restore(experiment.model, snapshot(load_run(file, ema, data=False).model), str(file))
        for update in experiment.network.updates:
            update.averages.reset(update.leaves())
    if evaluator:
        evaluator.check(experiment.pipeline)
    values = experiment.estimator.evaluate("eval")
    if evaluator:
        with judged(experiment.network):
            values |= {f"eval/{name}": value for name, value in evaluator(experiment.view()).items()}
    return values, experiment


def _average(arrays: dict[str, mx.array], decay: float, kept: list[float]) -> dict[str, mx.array]:
    """The averaged leaves of one decay in a checkpoint's arrays."""
    mark = f".ema.{decay}."
    found = {name.split(mark)[1]: array for name, array in arrays.items() if name.startswith("ops.") and mark in name}
    if not found:
        raise UsageError(f"the checkpoint keeps no EMA of decay {decay}; it keeps {kept or 'none'}.")
    return found


def in_seconds(text: str | float | None) -> float | None:
    """A duration in seconds: "90s", "15m", "2h" or a number; UsageError for anything else."""
    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (str(text)[:-1], units[str(text)[-1]]) if str(text)[-1:] in units else (str(text), 1.0)
    try:
        seconds = float(number) * unit
    except ValueError as error:
        raise UsageError(f'max_time must be like "90s", "15m", "2h" or null, got {text!r}.') from error
    if not seconds > 0:
        raise UsageError(f"max_time must be positive, got {text!r}.")
    return seconds
