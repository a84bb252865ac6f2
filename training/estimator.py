"""The loop: batches in, steps, traces told of everything, evaluations when due."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from runtime.errors import UsageError
from runtime.op import Batch, active, as_list, as_tuple
from runtime.scheduler import Scheduler
from runtime.seed import step_key
from runtime.slots import restore, snapshot
from runtime.upload import to_device
from runtime.world import ALONE, World
from training.agreement import Agreement, Interrupted
from training.data import Data
from training.evaluate import evaluate, means_of
from training.forward import ForwardStep
from training.frequency import check_counts, in_steps
from training.gathering import carry_note, gathered, named, own_of
from training.network import Network
from training.step import TrainStep
from training.summary import Summary, tell_skipped
from training.update import UpdateOp
from training.warmup import warm_up


class Estimator:
    """Trains a network on a pipeline and tells its traces.

    epochs, max_steps, max_time (seconds of training, earlier sittings included): whichever comes first.
    eval_every: "1e" (epochs), "500s" or 500 (steps), null for never. traces: one or several, also a Scheduler of some,
    which are then told of their epochs only (but all of on_begin, on_end and on_close). They declare data keys in
    `inputs` and are told in their order; one step goes: train step, on_batch_end, on_epoch_end, evaluation (whose loss
    is logged before its own on_epoch_end), on_step_end. train_steps_per_epoch: updates an epoch, by default one pass
    over the data, whose order goes on from epoch to epoch; eval_steps_per_epoch: most batches of each data set of an
    evaluation (a test is always whole). monitor_names: keys averaged and logged beside the losses.
    world: this process among those that train together. Only rank 0 has traces (but those that are `everywhere`) and
    evaluates; a wish to stop is everybody's a step or two later, one of an evaluation or epoch's end at once.
    log_steps, eval_log_steps: what a `Logger()` among the traces goes by (without one nothing is printed): steps
    between its lines (0: lines of epochs only, None: no lines at all), and the evaluation's batches, counted from 1,
    after which it says how far that is (none given: the first, a third, two thirds and the last).
    """

    def __init__(self, pipeline, network: Network, epochs: int | None = 1, traces: Any = (), *,
                 max_steps: int | None = None, max_time: float | None = None, seed: int = 0, accumulate: int = 1,
                 precision: str = "fp32", compile: bool = True, eval_every: str | int | None = "1e",
                 train_steps_per_epoch: int | None = None, eval_steps_per_epoch: int | None = None,
                 monitor_names: str | Iterable[str] | None = (), log_steps: int | None = 100,
                 eval_log_steps: Sequence[int] = (), world: World = ALONE):  # fmt: skip
        self.pipeline, self.network, self.seed, self.world = pipeline, network, seed, world
        self.traces: list[Any] = []
        self._scheduled: dict[int, list[tuple[Scheduler, int]]] = {}  # by a trace's id: its turns
        self._now = 1  # the epoch of the event that traces are told of, from 1
        for given in as_list(traces):
            for place, trace in enumerate(given.values if isinstance(given, Scheduler) else [given]):
                if trace is not None and (isinstance(trace, type) or not hasattr(trace, "on_epoch_end")):
                    raise UsageError(f"traces must be traces, made ones, got {trace!r}.")
                if trace is not None and trace not in self.traces and (world.rank == 0 or trace.everywhere):
                    self.traces.append(trace)
                if trace is not None and isinstance(given, Scheduler):
                    self._scheduled.setdefault(id(trace), []).append((given, place))
        check_counts(0, epochs=epochs, max_steps=max_steps, log_steps=log_steps)
        check_counts(1, train_steps_per_epoch=train_steps_per_epoch, eval_steps_per_epoch=eval_steps_per_epoch)
        if any(step < 1 for step in eval_log_steps):
            raise UsageError(f"eval_log_steps must be batch numbers from 1, got {list(eval_log_steps)}.")
        self.epochs, self.eval_steps_per_epoch = epochs, eval_steps_per_epoch
        self.log_steps, self.eval_log_steps = log_steps, tuple(eval_log_steps)
        self.monitor_names = as_tuple(monitor_names if isinstance(monitor_names, str | None) else [*monitor_names])
        self.steps_per_epoch = train_steps_per_epoch or pipeline.steps_per_epoch // accumulate
        if self.steps_per_epoch < 1:
            raise UsageError(f"accumulate={accumulate} needs as many batches an epoch, got {pipeline.steps_per_epoch}.")
        limits = [n for n in (max_steps, epochs and epochs * self.steps_per_epoch) if n is not None]
        if not limits and max_time is None:
            raise UsageError("give epochs, max_steps or max_time: without one the training never ends.")
        self.total_steps = min(limits) if limits else None
        self.max_time = max_time
        self.eval_every = in_steps(eval_every, self.steps_per_epoch, "eval_every")
        self.train_step = TrainStep(network, accumulate, precision, compile, self.steps_per_epoch, world=world)
        self.forward = {mode: ForwardStep(network, mode, compile) for mode in ("eval", "test", "infer")}
        self.step, self.elapsed, self.interrupted = 0, 0.0, 0
        self.agreement, self.summary = Agreement(world), Summary()
        self.mode, self._sitting = "train", ("train", "eval")  # the mode now, and the modes that on_begin serves
        self.workspace: Any = None  # the run's folder, for traces that write
        self.on_ready: Callable[[], None] = lambda: None  # called when nothing hinders the first step any more
        self._reason: str | None = None
        self.judges = True  # whether samples are judged at the end

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step // self.steps_per_epoch

    @property
    def traced(self) -> int:
        """How often a step of any mode was traced and compiled, see training/tracing.py."""
        return sum(step.traces.count for step in (self.train_step, *self.forward.values()))

    def update_of(self, model) -> UpdateOp:
        """The update that trains a model; UsageError where none does."""
        for update in self.network.updates:
            if update.model is model:
                return update
        raise UsageError(f"no UpdateOp trains this {type(model).__name__}; give one of the network's trained models.")

    def log(self, **values: Any) -> None:
        """Adds values to the row of the current step, for later traces and the record (names may hold slashes)."""
        values = {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}
        self.summary.latest |= values
        history = self.summary.history
        if not history or history[-1]["step"] != self.step:
            history.append({"step": self.step})
        history[-1] |= values
        for trace in filter(self._due, self._present()):
            trace.on_log(values)

    def stop(self, reason: str, judge: bool = True) -> None:
        """Ends the training after this step; judge=False: without the evaluation of samples that ends a run."""
        self._reason = self._reason or reason
        self.judges = self.judges and judge

    def prepare(self) -> None:
        """Gives the step its carry, shaped after the first batch, so that a checkpoint can be restored into it."""
        batches = self.pipeline.batches("train", self.step * self.train_step.accumulate)
        self.train_step.start(to_device(next(batches)))
        batches.close()

    def fit(self, summary: str | None = None, warmup: bool = True) -> Summary:
        """Trains from where the state stands to the end; raises Interrupted after a signal. summary: its name.

        warmup: first build all graphs and check keys and shapes of training and evaluation, see training/warmup.py.
        """
        self.summary.name = summary or self.summary.name
        if self.train_step.network.carry and not self.train_step.state["carry"]:
            self.prepare()
        self._sitting = ("train", "eval")
        try:
            self._announce("on_begin")
            if warmup and not self._done():
                evaluated = self.world.rank == 0 and self.eval_every and self.eval_every <= (self.total_steps or 1e9)
                warm_up(self, ("train", "eval") if evaluated else ("train",))
            self._train()
            if self.signal:
                raise Interrupted(self.signal)
            self.summary.steps, self.summary.reason = self.step, self._reason or "finished"
            tell_skipped(self.train_step.state, self.step, self.world.rank)
            self._announce("on_end")
        finally:
            self._close()
        return self.summary

    def _train(self) -> None:
        step, accumulate = self.train_step, self.train_step.accumulate
        wanted = {ds_id: self.wanted("train", ds_id) for ds_id in self.pipeline.get_ds_ids("train")}
        batches = self.pipeline.batches("train", self.step * accumulate)
        before: mx.array | None = None
        started = time.perf_counter() - self.elapsed
        try:
            while not self._done():
                if self.step % self.steps_per_epoch == 0:
                    self.tell("on_epoch_begin", "train")
                first = self.step * accumulate
                ds_id = self.pipeline.ds_id_at("train", first)
                self.tell("on_batch_begin", "train", ds_id=ds_id)
                data: Batch = {}
                phases = self.network.phases(self.step)
                for micro in range(accumulate):
                    ds_id = self.pipeline.ds_id_at("train", first + micro)
                    batch = to_device(next(batches))
                    key = step_key(self.seed, self.step, micro, self.world.rank)
                    last = micro == accumulate - 1
                    asked = self.agreement.asks(bool(self._reason), self.interrupted) if last else None
                    data = step(batch, key, wanted[ds_id], last, phases, ds_id, asked=asked)
                mx.async_eval(step.state, data)
                if before is not None:
                    mx.eval(before)  # one step may run ahead of the host, not more
                    self.agreement.heed(before)
                before = data.pop("asked", data["skipped"])
                self.step += 1
                self.elapsed = time.perf_counter() - started
                self.tell("on_batch_end", "train", data, ds_id)
                self._end_epoch()
                for trace in filter(self._due, self._present()):
                    trace.on_step_end()
        finally:
            batches.close()

    def _end_epoch(self) -> None:
        """Where the step ends an epoch or is to be evaluated: that, by rank 0, whose decisions the others take."""
        ended, due = self.step % self.steps_per_epoch == 0, bool(self.eval_every) and self.step % self.eval_every == 0
        held = snapshot(self.train_step.state) if self.world.many and (ended or due) else None
        if ended:
            self.tell("on_epoch_end", "train")
        if due and self.world.rank == 0:
            self.evaluate("eval")
        if held is not None:
            self.agreement.follow(self.train_step, held, bool(self._reason))

    @property
    def signal(self) -> int:
        """The signal that stops the training, which all processes know of, or 0; `interrupted`: this process's."""
        return self.agreement.signal if self.world.many else self.interrupted

    def _done(self) -> bool:
        if self.total_steps is not None and self.step >= self.total_steps:
            return True
        if self.max_time is not None and self.elapsed >= self.max_time and self.world.rank == 0:
            self.stop(f"max_time of {self.max_time:g} s reached")
        if self.world.many:
            return self.agreement.ended or bool(self.agreement.signal)
        return bool(self._reason or self.interrupted)

    def test(self, summary: str | None = None) -> Summary:
        """Evaluates on the test data; its values join the summary, named `summary`, as "test/<name>"."""
        self.pipeline.source("test")  # UsageError where there are none
        self.summary.name = summary or self.summary.name
        self._sitting = ("test",)
        try:
            self._announce("on_begin")
            warm_up(self, ("test",))
            self.evaluate("test")
            self._announce("on_end")
        finally:
            self._close()
        return self.summary

    def evaluate(self, mode: str = "eval", decay: float | None = None) -> dict[str, float]:
        """One pass over the data of a mode, see training/evaluate.py; {} where it has none. decay: of the average."""
        if mode not in self.pipeline.sources:
            return {}
        before, self.mode = self.mode, mode
        values = evaluate(self, mode, decay)
        self.mode = before
        return values

    def wanted(self, mode: str, ds_id: str) -> set[str]:
        """The data keys that a step of a mode and data set must give: what is averaged, what traces declare."""
        names = self.monitor_names if mode == "train" else means_of(self)
        return {*names, *(key for trace in self.told(mode, ds_id) for key in trace.inputs)}

    def told(self, mode: str, ds_id: str) -> list:
        """The traces that hear of a mode and data set, in their order."""
        return [trace for trace in self.traces if active(trace.mode, mode) and active(trace.ds_id, ds_id)]

    def state_arrays(self) -> Batch:
        """Everything that changes in training, by path; all processes must ask, and get the same."""
        return gathered(self.train_step)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the arrays; the data position is the step."""
        traces = {name: trace.state_dict() for name, trace in named(self.traces).items()}
        return {"step": self.step, "epoch": self.epoch, "elapsed": self.elapsed, "latest": self.summary.latest,
                "processes": self.world.size, "traces": traces}  # fmt: skip

    def load(self, arrays: Batch, meta: dict[str, Any], source: str) -> None:
        """Continues from a checkpoint: arrays, position, and the state of every trace it knows."""
        self.step, self.elapsed, self.summary.latest = meta["step"], meta["elapsed"], dict(meta["latest"])
        if self.network.carry:
            self.prepare()
            if self.world.rank == 0 and (note := carry_note(meta, self.world.size)):
                (self.workspace.say if self.workspace else print)(note)
        restore(self.train_step.state, own_of(self.train_step, arrays, meta.get("processes", 1)), source)
        for name, trace in named(self.traces).items():
            if name in meta["traces"]:
                trace.load_state_dict(meta["traces"][name])

    def _due(self, trace: Any) -> bool:
        """Whether a trace has its turn in the epoch of the event; always true without a schedule."""
        turns = self._scheduled.get(id(trace))
        return turns is None or any(scheduler.index(self._now) == place for scheduler, place in turns)

    def _present(self) -> list:
        """The traces of this sitting: of "train" or "eval" in a fit, of "test" in a test."""
        return [trace for trace in self.traces if any(active(trace.mode, mode) for mode in self._sitting)]

    def _announce(self, hook: str) -> None:
        """Calls on_begin or on_end of the traces of this sitting."""
        self.mode = self._sitting[0]
        for trace in self.traces:
            trace.estimator = self
        data = Data(mode=self.mode, log=self.log)
        for trace in self._present():
            getattr(trace, hook)(data)

    def _close(self) -> None:
        for trace in self._present():
            trace.on_close()

    def tell(self, hook: str, mode: str, values: Mapping[str, Any] | None = None, ds_id: str | None = None) -> Data:
        """Calls a hook of the traces of a mode and data set (None: of those of any of the mode's); what they saw."""
        data = Data(values, mode, ds_id or "", self.log)
        ids = self.pipeline.get_ds_ids(mode) if ds_id is None else [ds_id]
        done = mode != "train" or hook not in ("on_epoch_begin", "on_batch_begin")  # the step is counted already
        self._now = max(self.step - done, 0) // self.steps_per_epoch + 1
        for trace in self.traces:
            if self._due(trace) and active(trace.mode, mode) and any(active(trace.ds_id, own) for own in ids):
                getattr(trace, hook)(data)
        return data
