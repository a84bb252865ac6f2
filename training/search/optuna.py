"""Optuna's samplers and pruners as a search: proposals learn from earlier values, hopeless evaluations end early."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runtime.errors import UsageError
from training.search.search import Search
from training.search.space import Interval

PRUNERS = {"none": "NopPruner", "median": "MedianPruner", "hyperband": "HyperbandPruner",
           "halving": "SuccessiveHalvingPruner"}  # fmt: skip


class OptunaSearch(Search):
    """`n` trials of the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) over `params`.

    params: {name: list of numbers or texts, or Interval}. Where eval_fn has an argument `report`, it is given a
    function: `report(value, step)` tells an intermediate value and is True once the pruner (none, median, hyperband,
    halving; `pruner_options` are its arguments) wants the evaluation to end. What eval_fn returns then is kept and
    marked "pruned": true; such an evaluation is never the best. A failed one counts as pruned at once, so that later
    proposals keep away from it. The study is in memory or, with `fit(save_dir)`, in
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
        trials = self.study.get_trials(deepcopy=False)
        unfinished = [trial._trial_id for trial in trials if trial.state == optuna.trial.TrialState.RUNNING]
        self._each(self._try, unfinished + [None] * (self.n - len(trials)))

    def _proposed(self, unfinished: int | None) -> tuple[Any, dict[str, Any]]:
        """A trial of the study, that which a kill left behind or a new one, and its parameters."""
        import optuna

        with self._lock:
            if unfinished is None:
                seed = self.seed + len(self.study.get_trials(deepcopy=False))
                self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=self.jobs > 1)
                trial = self.study.ask()
            else:
                trial = optuna.trial.Trial(self.study, unfinished)
                self.study.sampler = optuna.samplers.TPESampler(seed=self.seed + trial.number)
            return trial, {name: _suggested(trial, name, space) for name, space in self.params.items()}

    def _try(self, unfinished: int | None) -> None:
        """Evaluates one proposal and tells the study."""
        from optuna.trial import TrialState

        trial, parameters = self._proposed(unfinished)
        told = {*trial.study.trials[trial.number].intermediate_values}
        pruned = False

        def report(value: float, step: int) -> bool:
            nonlocal pruned
            if step not in told:  # a resumed evaluation tells some again
                trial.report(value, step)
                told.add(step)
            pruned = pruned or trial.should_prune()
            return pruned

        given = {"report": report} if "report" in self.arguments else {}
        done = self._evaluated(parameters, lambda: {"pruned": True} if pruned else {}, **given)
        value = self.value_of(done)
        if "error" in done or done.get("pruned") or value != value:
            self.study.tell(trial, state=TrialState.PRUNED)  # of "failed" ones the sampler would learn nothing
        else:
            self.study.tell(trial, value)


def _suggested(trial: Any, name: str, space: Sequence | Interval) -> Any:
    if not isinstance(space, Interval):
        return trial.suggest_categorical(name, list(space))
    if space.integer:
        return trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)
