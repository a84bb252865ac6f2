"""The trace that judges samples: evaluators and pictures, at the end and every so often."""

from collections.abc import Callable
from typing import Any, Protocol

from runtime.errors import UsageError
from traces.trace import Trace
from training.data import Data
from training.experiment import check_judge
from training.forward import judged
from training.frequency import in_steps


class Judge(Protocol):
    """What an evaluator must offer."""

    def check(self, pipeline: Any) -> None:
        """Raises UsageError where the data cannot serve it."""

    def __call__(self, run: Any) -> dict[str, float]:
        """The metrics of a run by name."""
        ...


class Evaluation(Trace):
    """Runs an evaluator and draws pictures with the EMA weights; checks that the data suffices before the first step.

    evaluator(run) -> {metric: value}; pictures(run, folder, name) -> paths. every, pictures_every: "5e", "500s" or
    null; both also run at the end. Values are logged as eval/<metric>, pictures as samples/<name>.
    """

    experiment: Any = None

    def __init__(self, evaluator: Judge | None = None, pictures: Callable | None = None,
                 every: str | int | None = None, pictures_every: str | int | None = None):  # fmt: skip
        super().__init__(mode="train")
        self.evaluator = evaluator if callable(evaluator) else None  # evaluation=none is a mapping that builds nothing
        self.pictures, self.every, self.pictures_every = pictures, every, pictures_every
        self.steps: list[int | None] = [None, None]  # both frequencies in steps

    def on_begin(self, data: Data) -> None:
        """Reads the frequencies; raises UsageError where one is wrong or the data cannot serve the evaluator."""
        length = self.estimator.steps_per_epoch
        self.steps = [in_steps(e, length, "evaluation.every") for e in (self.every, self.pictures_every)]
        if self.evaluator:
            check_judge(self.evaluator, self.experiment)
        if (self.evaluator or self.pictures) and self.experiment.objective.generates and not self.experiment.solver:
            raise UsageError("solver is null, and this run's samples are evaluated or drawn; needed: solver=NAME, or "
                             "evaluation=none with traces.evaluation.pictures=null.")  # fmt: skip

    def on_epoch_end(self, data: Data) -> None:
        """Looks whether one is due."""
        self._when_due()

    def on_batch_end(self, data: Data) -> None:
        """Looks whether one is due within an epoch."""
        if self.estimator.step % self.estimator.steps_per_epoch:
            self._when_due()

    def _when_due(self) -> None:
        evaluate, draw = (bool(n) and self.estimator.step % n == 0 for n in self.steps)
        if evaluate or draw:
            self._judge(evaluate, draw)

    def on_end(self, data: Data) -> None:
        """The final judgement, unless the run was given up."""
        if self.estimator.judges:
            self._judge(True, True)

    def _judge(self, evaluate: bool, draw: bool) -> None:
        folder = self.estimator.workspace.folder
        with judged(self.experiment.network):
            run = self.experiment.view(folder)
            if draw and self.pictures is not None:
                paths = self.pictures(run, folder / "samples", f"step_{self.estimator.step:08d}")
                self.estimator.log(**{f"samples/{i}": str(p.relative_to(folder)) for i, p in enumerate(paths)})
            if evaluate and self.evaluator:
                self.estimator.log(**{f"eval/{name}": value for name, value in self.evaluator(run).items()})
