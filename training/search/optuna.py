"""Optuna's samplers and pruners as a search: proposals learn from earlier values, hopeless evaluations end early."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runtime.errors import UsageError
from training.search.search import Evaluated, Search
from training.search.space import Interval

PRUNERS = {"none": "NopPruner", "median": "MedianPruner", "hyperband": "HyperbandPruner",
           "halving": "SuccessiveHalvingPruner"}  # fmt: skip


class OptunaSearch(Search):
    """`n` trials of the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) over `params`.

    params: {name: list of numbers or texts, or Interval}. Where eval_fn has an argument `report`, it is given a
    function: `report(value, step)` tells an intermediate value and is True once the pruner (none, median, hyperband,
    halving; `pruner_options` are its arguments) wants the evaluation to end. What eval_fn returns then is kept and
    marked "pruned": true; such an evaluation is never the best. The study is in memory or, with `fit(save_dir)`, in
    `<save_dir>/<name>.db`. Proposal i depends on (seed, i) and the values before it, so that a search which was killed
    goes on as if it had not been.
    """

    def __init__(self, eval_fn: Callable[..., Any], params: Mapping[str, Sequence | Interval], n: int,
                 best_mode: str = "min", optimize_field: str | None = None, seed: int = 0, pruner: str = "median",
                 pruner_options: Mapping[str, Any] | None = None, name: str = "optuna_search"):  # fmt: skip
        super().__init__(eval_fn, name, best_mode, optimize_field)
        if n < 1:
            raise UsageError(f"n must be at least 1, got {n}.")
        if pruner not in PRUNERS:
            raise UsageError(f"pruner must be one of {', '.join(PRUNERS)}, got {pruner!r}.")
        for key, space in params.items():
            plain = isinstance(space, list | tuple) and all(isinstance(v, int | float | str) for v in space)
            if not isinstance(space, Interval) and not (plain and space):
                raise UsageError(f"{key} needs an Interval or a list of numbers or texts, got {space!r}.")
        self.check_names(list(params))
        self.params, self.n, self.seed = dict(params), n, seed
        self.pruner, self.pruner_options = pruner, dict(pruner_options or {})
        self.study: Any = None
        self._pruned = False

    def _fit(self) -> None:
        try:
            import optuna
        except ModuleNotFoundError as error:
            raise UsageError("OptunaSearch needs optuna: pip install 'mlx-lab[search]'.") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            storage=None if self.save_dir is None else f"sqlite:///{self.save_dir.resolve() / self.name}.db",
            study_name=self.name, load_if_exists=True,
            direction="maximize" if self.best_mode == "max" else "minimize",
            pruner=getattr(optuna.pruners, PRUNERS[self.pruner])(**self.pruner_options),
        )  # fmt: skip
        states = optuna.trial.TrialState
        unfinished = [t for t in self.study.get_trials(deepcopy=False) if t.state == states.RUNNING]
        for number in [t.number for t in unfinished] + list(range(len(self.study.trials), self.n)):
            self.study.sampler = optuna.samplers.TPESampler(seed=self.seed + number)
            killed = next((t for t in unfinished if t.number == number), None)
            trial = self.study.ask() if killed is None else optuna.trial.Trial(self.study, killed._trial_id)
            done = self._tried(trial)
            value = self.value_of(done)
            if "error" in done or value != value:
                self.study.tell(trial, state=states.FAIL)
            elif done.get("pruned"):
                self.study.tell(trial, state=states.PRUNED)
            else:
                self.study.tell(trial, value)

    def _tried(self, trial: Any) -> Evaluated:
        """Evaluates what a trial proposes."""
        parameters = {name: _suggested(trial, name, space) for name, space in self.params.items()}
        told: set[int] = {*trial.study.trials[trial.number].intermediate_values}
        self._pruned = False

        def report(value: float, step: int) -> bool:
            if step not in told:  # a resumed evaluation tells some again
                trial.report(value, step)
                told.add(step)
            self._pruned = self._pruned or trial.should_prune()
            return self._pruned

        return self._evaluated(parameters, **({"report": report} if "report" in self.arguments else {}))

    def marks(self) -> dict[str, Any]:
        """Whether the evaluation was pruned."""
        return {"pruned": True} if self._pruned else {}


def _suggested(trial: Any, name: str, space: Sequence | Interval) -> Any:
    if not isinstance(space, Interval):
        return trial.suggest_categorical(name, list(space))
    if space.integer:
        return trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)
