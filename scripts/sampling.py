"""A run opened for sampling: its solver changed, data only where something needs them, labels, counted evaluations."""

import sys
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from omegaconf import DictConfig

from dataloaders.pipeline import Pipeline
from dataloaders.source import Source
from runtime.errors import UsageError
from runtime.instantiate import build, locate
from runtime.op import Objective
from runtime.run import Run
from scripts.arguments import change
from training.experiment import load_run

Label = int | Literal["uniform"] | None
LABELS = 1  # second word of the labels' random stream; the noise has the seed alone


class Counted:
    """A solver that keeps the evaluations of every solve, and goes through `jumps` if those times are given.

    The solver itself knows the last solve's evaluations alone.
    """

    def __init__(self, solver: Any, jumps: list[float] | None = None):
        self.solver, self.counts, self.jumps = solver, [], jumps

    def __getattr__(self, name: str) -> Any:
        return getattr(self.solver, name)

    def solve(self, field: Any, x: Any) -> Any:
        """The solver's own, from 0 to 1."""
        result = self.solver.solve(field, x, self.jumps)
        self.counts.append(self.solver.evaluations)
        return result


def opened(path: str, ema: bool | float, solver: str | None, changes: dict[str, Any], guidance: float | None,
           guided_from: float | None = None, guided_to: float | None = None) -> Run:  # fmt: skip
    """The run in a checkpoint without its data, with the solver and the guidance asked for.

    guided_from, guided_to: the interval of a model that takes it as a condition; others raise UsageError.
    """
    run = load_run(path, ema, data=False)
    plugins = tuple(run.config.plugins)
    change(run.config, "solver", solver, changes)
    run.solver = build(run.config.solver, plugins=plugins)
    asked: dict[str, Any] = {"guidance": guidance, "guided_from": guided_from, "guided_to": guided_to}
    asked = {name: value for name, value in asked.items() if value is not None}
    if asked.keys() - {"guidance"} and run.config.loss.get("guidance_max", 1) <= 1:
        raise UsageError(f"guided_from={guided_from} and guided_to={guided_to} need a model with the interval as a "
                         "condition: loss=imf with guidance_max above 1.")  # fmt: skip
    if asked:
        run.objective = build(run.config.loss, plugins=plugins, **asked)
    if guidance is not None and not run.config.loss.get("label_dropout"):
        print("note: trained without label_dropout, so guidance has no 'no class' to lead from.", file=sys.stderr)
    check_samples(run)
    return run


def check_samples(run: Run) -> None:
    """Raises UsageError for a run without samples, and for one whose samples need conditions other than labels."""
    kind = type(run.objective)
    if kind.sample is Objective.sample and kind.velocity is Objective.velocity:
        raise UsageError(f"{kind.__name__} is not a generative objective: its runs have no samples.")
    if unknown := set(run.objective.conditions) - {"label", "augment"}:  # without "augment": as if not augmented
        raise UsageError(f"this model is conditioned on {', '.join(sorted(unknown))}; only label can be given here.")


def jumps_of(text: str | None) -> list[float] | None:
    """The times in jumps=0,0.6,1; UsageError unless they rise from 0 to 1."""
    if text is None:
        return None
    try:
        times = [float(part) for part in text.strip("[]").split(",")]
    except ValueError:
        times = []
    rising = all(a < b for a, b in zip(times, times[1:], strict=False))
    if len(times) < 2 or times[0] != 0 or times[-1] != 1 or not rising:
        raise UsageError(f"jumps must be times that rise from 0 to 1, such as 0,0.6,1, got {text!r}.")
    return times


def label_of(text: str | None) -> Label:
    """What label=3, label=uniform or no label= asks for."""
    if text is None or text == "uniform":
        return text  # type: ignore[return-value]  # it is the literal
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"label must be a class's number, -1 for no class, or uniform, got {text!r}.") from error


def add_data(run: Run, needed: bool, label: Label) -> None:
    """Gives the run its data where they are needed or a label is to be drawn, else normal noise of its shape.

    Data that only the labels want may be missing: this is said, and labels are then uniform.
    """
    config = run.config.dataloaders
    stated = config.get("shape") is not None and config.get("classes") is not None
    if needed or not stated or not normal_noise(run.config):
        run.pipeline = build(config, plugins=tuple(run.config.plugins))
        return
    stand_in = Source()
    stand_in.shape, stand_in.classes = tuple(config.shape), config.classes
    run.pipeline = stand_in
    if "label" in run.objective.conditions and label is None:
        try:
            run.pipeline = build(config, plugins=tuple(run.config.plugins))
        except UsageError as error:
            print(
                f"note: labels are uniform over {config.classes} classes, not as in the data: {error}", file=sys.stderr
            )


def normal_noise(config: DictConfig) -> bool:
    """Whether sampling starts from standard normal noise, told from the classes of the data alone."""
    plugins = tuple(config.plugins)
    kinds = (config.dataloaders, Pipeline), (config.dataloaders.train_data, Source)
    return all(getattr(locate(node["_target_"], plugins), "noise", None) is base.noise for node, base in kinds)


def labels(run: Run, count: int, seed: int, label: Label) -> dict[str, np.ndarray]:
    """{"label": (count,) int32}: the one asked for, all classes in turn ("uniform") or in the data's proportions.

    Nothing for unconditional models.
    """
    classes = run.pipeline.classes
    if "label" not in run.objective.conditions:
        if label is not None:
            raise UsageError(f"label={label} was given, but this model is unconditional; leave it out.")
        return {}
    if label == "uniform":
        return {"label": (np.arange(count) % classes).astype(np.int32)}
    if label is not None:
        if not -1 <= label < classes:
            raise UsageError(f"label must lie in 0..{classes - 1} (or be -1: no class), got {label}.")
        return {"label": np.full(count, label, np.int32)}
    rng = np.random.default_rng([seed, LABELS])
    if isinstance(run.pipeline, Source):
        return {"label": rng.integers(classes, size=count).astype(np.int32)}
    source = run.pipeline.source("train")
    rows: Sequence[np.ndarray] = np.array_split(rng.integers(len(source), size=count), -(-count // 1000))
    return {"label": np.concatenate([source.take(part, rng)["label"] for part in rows])}
