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
from runtime.op import Objective
from runtime.run import Run
from runtime.schema import in_seconds
from runtime.slots import restore, snapshot, write
from runtime.world import ALONE, World
from training import checkpoint, compressed
from training.estimator import Estimator
from training.forward import judged, judged_arrays
from training.learner import Learner, learner, targets
from training.network import Network
from training.sharding import check_sharded


@dataclass
class Experiment:
    """What a config describes, built: data, what learns from them, the solver, the estimator."""

    config: DictConfig
    pipeline: Any
    learner: Learner
    solver: Any
    estimator: Estimator

    @property
    def network(self) -> Network:
        """The network that trains."""
        return self.learner.network

    @property
    def objective(self) -> Objective:
        """The learner's; one without samples where the network is made of ops."""
        return self.learner.objective

    def view(self, folder: Path | None = None) -> Run:
        """The run as evaluators see it; call inside `judged(network)` for the averaged weights."""
        step = self.estimator.step
        learner = self.learner
        return Run(self.config, learner.model, learner.objective, self.pipeline, self.solver, folder, step,
                   models=learner.models)  # fmt: skip

    def start_from(self, path: str) -> None:
        """Takes the (averaged) weights of another run's checkpoint, fine-tuning; averages start from them too."""
        source = load_run(path, data=False)
        models = with_tables(self.learner.models)
        own = self.estimator.train_step.shards.own(snapshot(with_tables(source.models)), snapshot(models))
        restore(models, own, path)
        for update in self.network.updates:
            update.averages.reset(update.leaves())


def assemble(config: DictConfig, world: World = ALONE) -> Experiment:
    """Builds everything that a config names; raises UsageError for what does not fit.

    Initial weights are a function of the seed alone. world: this process among those that train together.
    """
    plugins = tuple(config.plugins)
    ranks: dict[str, Any] = {"rank": world.rank, "world": world.size} if world.many else {}
    pipeline: Any = build(config.dataloaders, plugins=plugins, **ranks)
    mx.random.seed(config.seed)  # layers draw their initial weights from the global state, only here
    learns = learner(config, world)
    network = learns.network
    if world.many and config.distributed.strategy == "fsdp":
        check_sharded(network, bool(config.eval_every or config.get("traces", {}).get("evaluation")))
    pipeline.add_ops(learns.objective.host_ops())
    given = targets(config.traces)
    if both := set(given) & set(learns.metrics):
        raise UsageError(f"{both.pop()!r} is a name in network.metrics and in traces; give each its own.")
    built = {name: build(node, plugins=plugins, models=learns.models) for name, node in given.items()}
    traces = []
    for name, trace in {**learns.metrics, **built}.items():
        trace.name = name
        traces.append(trace)
    estimator = Estimator(
        pipeline, network, config.epochs, traces, max_steps=config.max_steps, max_time=in_seconds(config.max_time),
        seed=config.seed, accumulate=config.accumulate, precision=config.precision, compile=config.compile,
        eval_every=config.eval_every, world=world,
    )  # fmt: skip
    solver: Any = build(config.solver, plugins=plugins)
    if solver is not None and solver.average:
        learns.objective.average_velocity(learns.model)  # says so now, not after the training, where there is none
    experiment = Experiment(config, pipeline, learns, solver, estimator)
    for trace in traces:
        trace.experiment, trace.estimator = experiment, estimator
    return experiment


def with_tables(models: dict[str, nn.Module]) -> list:
    """The models and the tables of those that have one: all that another training may start from."""
    return [models, {name: getattr(model, "table", None) for name, model in models.items()}]


def load_run(path: str | Path, ema: float | bool = True, data: bool = True) -> Run:
    """The run in a checkpoint (a file or a run folder): model with its weights, config, data, objective, solver.

    ema: True for the first average kept, a decay, or False for the plain weights. data: False leaves the data set
    unread (`pipeline` is then None). Everything but the data comes from the file alone.
    """
    return as_run(*open_learner(path, ema), data)


def as_run(file: Path, meta: dict[str, Any], config: DictConfig, learns: Learner, data: bool = True) -> Run:
    """What `open_learner` gives as a run, with its solver and, if `data`, its data set."""
    plugins = tuple(config.plugins)
    solver: Any = build(config.solver, plugins=plugins)
    pipeline = build(config.dataloaders, plugins=plugins) if data else None
    place = checkpoint.home(file)
    return Run(config, learns.model, learns.objective, pipeline, solver, place, meta["step"], meta, learns.models)


def open_learner(path: str | Path, ema: float | bool = True) -> tuple[Path, dict[str, Any], DictConfig, Learner]:
    """A checkpoint's file, its metadata, config, and what learnt, with the weights that `load_run` describes."""
    file = checkpoint.find(path)
    arrays, meta = checkpoint.load(file)
    config: Any = OmegaConf.create(checkpoint.config_of(meta, file))
    learns = learner(config)
    network = learns.network
    if compressed.META in meta:
        one_set(meta, ema)
        compressed.open_into(learns.models, network, arrays, meta, file)
    else:
        own = {} if network.looking_up is None else {"table": network.looking_up.table}
        state = {"models": learns.models, "ops": {str(i): op.state for i, op in enumerate(network.ops)}, **own}
        restore(state, {name: a for name, a in arrays.items() if name.partition(".")[0] in state}, str(file))
        take_average(network, ema)
    for model in learns.models.values():
        model.train(False)
        mx.eval(model.parameters())
    return file, meta, config, learns


def one_set(meta: dict[str, Any], ema: float | bool) -> None:
    """Raises UsageError where an average is asked of a compressed file, which holds one set of weights."""
    if not isinstance(ema, bool):
        raise UsageError(f"a compressed file holds one set of weights (ema={meta[compressed.META]['ema']}), got "
                         f"ema={ema}; leave it out.")  # fmt: skip


def take_average(network: Network, ema: float | bool) -> None:
    """Gives the models the average asked for, as `load_run` names it; False: they keep what they have."""
    kept = list(dict.fromkeys(decay for update in network.updates for decay in update.averages.decays))
    if ema is not False and (kept or ema is not True):
        if ema is not True and ema not in kept:
            raise UsageError(f"the checkpoint keeps no EMA of decay {ema}; it keeps {kept or 'none'}.")
        write(network.models, judged_arrays(network, None if ema is True else ema))


def check_judge(evaluator: Any, experiment: Experiment) -> None:
    """Raises UsageError where the data can't serve an evaluator, or it judges samples and the run has none."""
    if getattr(evaluator, "needs_samples", False) and not experiment.objective.generates:
        raise UsageError(f"{type(evaluator).__name__} judges samples, and this run, which trains "
                         f"{experiment.learner.trains}, has none; needed: evaluation=none.")  # fmt: skip
    evaluator.check(experiment.pipeline)


def evaluate_run(
    path: str | Path, ema: float | bool = True, change: Callable[[DictConfig], DictConfig] = lambda config: config
) -> tuple[dict[str, float], Experiment]:
    """Rebuilds a run from its checkpoint alone and evaluates it: held-out losses, metrics and the config's evaluator.

    Where the run has test data, these too; of its traces only the network's metrics are told.
    ema: the weights to judge, as for `load_run`. change: alters the config first (another evaluation or solver).
    """
    file = checkpoint.find(path)
    arrays, meta = checkpoint.load(file)
    config = change(OmegaConf.create({**checkpoint.config_of(meta, file), "traces": {}, "resume": False}))
    built: Any = build(config.evaluation, plugins=tuple(config.plugins))
    evaluator: Any = built if "_target_" in (config.evaluation or ()) else None  # evaluation=none is a mapping without
    experiment = assemble(config)
    if compressed.META in meta:
        one_set(meta, ema)
        compressed.open_into(experiment.learner.models, experiment.network, arrays, meta, file)
        experiment.estimator.step = meta["step"]
    else:
        experiment.estimator.load(arrays, meta, str(file))
        if ema is not True:
            restore(experiment.learner.models, snapshot(load_run(file, ema, data=False).models), str(file))
            for update in experiment.network.updates:
                update.averages.reset(update.leaves())
    if evaluator:
        check_judge(evaluator, experiment)
    estimator = experiment.estimator
    estimator.summary.latest = {}  # those of the training
    for mode in ("eval", "test"):
        estimator.evaluate(mode)
    values = {name: float(value) for name, value in estimator.summary.latest.items() if isinstance(value, int | float)}
    if evaluator:
        with judged(experiment.network):
            values |= {f"eval/{name}": value for name, value in evaluator(experiment.view()).items()}
    return values, experiment
