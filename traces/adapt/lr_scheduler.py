"""Learning rates by the step or the epoch, part of the compiled step."""

import inspect
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from runtime.errors import UsageError
from runtime.rate_controller import RateController
from traces.trace import Trace
from training.data import Data, one_number

Rate = Callable[[mx.array], mx.array]


class LRScheduler(Trace):
    """Gives a model's update the rate lr_fn(step) or lr_fn(epoch), both counted from 1, by its argument's name.

    The one argument without a default counts; `time`, as the functions of optimizers/decays.py have it, means steps.
    lr_fn must depend on its argument alone: it is traced into the step, and where it can't be (it branches on its
    argument, say) a table of its values is. What ReduceLROnPlateau lowers multiplies it. Parameter groups keep their
    rates' ratios to the outer one. Raises UsageError for another argument, or a table of a run without an end.

    lr_fn may be a RateController such as `ARC(3)` (optimizers/arc.py): from the losses that the update goes by, in
    training and, where there are any, in evaluation, it multiplies the rate that the update has anyway at the end of
    every `frequency` epochs, after the evaluation that is due there. Logged as <mode>/learning_rate_factor.
    """

    everywhere = True

    def __init__(self, model: nn.Module, lr_fn: Callable[[Any], Any] | RateController):
        self.model, self.controller = model, cast(Any, lr_fn if isinstance(lr_fn, RateController) else None)
        self._installed: Any = None
        self._waiting: list[tuple[mx.array, float]] = []  # losses of steps that may still be under way
        if isinstance(lr_fn, RateController):
            super().__init__(outputs="learning_rate_factor", mode=("train", "eval"))
            return
        super().__init__(mode="train")
        names = [name for name, p in inspect.signature(lr_fn).parameters.items() if p.default is p.empty]
        if len(names) != 1 or names[0] not in ("step", "epoch", "time"):
            raise UsageError(f"lr_fn needs one argument named step or epoch, got {', '.join(names) or 'none'}.")
        self.lr_fn, self.by_epoch = lr_fn, names[0] == "epoch"

    def on_begin(self, data: Data) -> None:
        """Installs the schedule in the update, once."""
        update = self.estimator.update_of(self.model)
        if self.controller is not None or update is self._installed:
            return
        rate = self._rate()
        for groups in update.optimized:
            base = groups[-1].base
            if base <= 0:
                raise UsageError(f"LRScheduler needs an update with a learning rate above 0, got {base}.")
            for group in groups:
                group.schedule = lambda step, base=base: rate(step) / base
        self._installed = update

    def on_batch_end(self, data: Data) -> None:
        """Hands the controller the losses of the steps before this one, which are done, so that nobody waits."""
        if self._decides and data.mode == "train":
            length = self.controller.frequency * self.estimator.steps_per_epoch
            self._hand_over()
            if (loss := data.get(self.estimator.update_of(self.model).loss_name)) is not None:
                self._waiting.append((loss, (self.estimator.step - 1) % length / length))

    def on_epoch_end(self, data: Data) -> None:
        """Hands over the loss of an evaluation, and lets the controller choose once all of a cycle is seen."""
        if not self._decides:
            return
        self._hand_over()
        estimator, update = self.estimator, self.estimator.update_of(self.model)
        if data.mode == "eval" and update.loss_name in data:
            self.controller.eval_loss(one_number(data, update.loss_name))
        evaluated = "eval" in estimator.pipeline.sources and estimator.eval_every
        last = "eval" if evaluated and estimator.step % estimator.eval_every == 0 else "train"
        ended = estimator.step % (self.controller.frequency * estimator.steps_per_epoch) == 0
        if not ended or data.mode != last:
            return
        rate = (update.groups[-1].rate(mx.array(estimator.step - 1)) * update.state["scale"]).item()
        factor = self.controller.multiplier(rate)
        if factor != 1:
            update.state["scale"] = update.state["scale"] * factor
        data.write_with_log(self.outputs[0], factor)

    @property
    def _decides(self) -> bool:
        return self.controller is not None and self.estimator.world.rank == 0

    def _hand_over(self) -> None:
        for loss, progress in self._waiting:
            self.controller.train_loss(float(cast(float, loss.item())), progress)
        self._waiting = []

    def state_dict(self) -> dict[str, Any]:
        """What the controller remembers; the scale is part of the update's state."""
        if self.controller is None:
            return {}
        self._hand_over()
        return self.controller.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        if self.controller is not None and state:
            self._waiting = []
            self.controller.load_state_dict(state)

    def _rate(self) -> Rate:
        """The rate as a function of the update's own step, which counts from 0."""
        length = self.estimator.steps_per_epoch if self.by_epoch else 1
        try:
            compiled = mx.compile(lambda time: mx.array(self.lr_fn(time), mx.float32))
            mx.eval(compiled(mx.array(1)))
            return lambda step: mx.array(self.lr_fn(step // length + 1), mx.float32)
        except Exception:  # lr_fn is anybody's: whatever it raises for a traced array, numbers may still do
            total = self.estimator.total_steps
        if total is None:
            raise UsageError("an lr_fn that can't be traced needs epochs or max_steps, got a run without an end.")
        table = mx.array(np.array([self.lr_fn(time) for time in range(1, -(-total // length) + 1)], np.float32))
        return lambda step: table[mx.minimum(step // length, table.size - 1)]


class WarmupScheduler(Trace):
    """Over the first `warmup_steps` updates, a line from start_lr to the rate that the update has anyway.

    target_lr: where the line ends, and the rate from then on unless the update has a schedule. Stands after an
    LRScheduler of the same model. Raises UsageError for warmup_steps below 1.
    """

    everywhere = True

    def __init__(self, model: nn.Module, warmup_steps: int, target_lr: float | None = None, start_lr: float = 0.0):
        super().__init__(mode="train")
        if warmup_steps < 1:
            raise UsageError(f"warmup_steps must be at least 1, got {warmup_steps}.")
        self.model, self.warmup_steps, self.target_lr, self.start_lr = model, warmup_steps, target_lr, start_lr
        self._installed: Any = None

    def on_begin(self, data: Data) -> None:
        """Puts the line before the update's schedule, once."""
        update = self.estimator.update_of(self.model)
        if update is self._installed:
            return
        for groups in update.optimized:
            base = groups[-1].base
            start, target = self.start_lr / base, None if self.target_lr is None else self.target_lr / base
            for group in groups:
                group.schedule = self._after_a_line(group.schedule, start, target)
        self._installed = update

    def _after_a_line(self, schedule: Callable | None, start: float, target: float | None) -> Rate:
        def factor(step: mx.array) -> mx.array:
            later = schedule(step) if schedule else mx.array(1.0 if target is None else target)
            end = later if target is None else target
            share = (step + 1) / self.warmup_steps
            return mx.where(step < self.warmup_steps, start + (end - start) * share, later)

        return factor
