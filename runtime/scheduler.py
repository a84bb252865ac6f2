"""Values that change with the epoch, counted from 1: FastEstimator's EpochScheduler and RepeatScheduler."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from runtime.errors import UsageError
from runtime.nested import Nested
from runtime.op import Op


class Scheduler:
    """Chooses one of `values` for every epoch; None stands for nothing.

    settled, period: from epoch `settled` on its values come again every `period` epochs.
    """

    values: list[Any]
    settled, period = 1, 1

    def index(self, epoch: int) -> int | None:
        """Which of the values belongs to an epoch (from 1); None before the first."""
        raise NotImplementedError

    def get_current_value(self, epoch: int) -> Any:
        """The value of an epoch, None before the first."""
        place = self.index(epoch)
        return None if place is None else self.values[place]

    def get_all_values(self) -> list[Any]:
        """Every value it can give, None among them if it is listed."""
        return list(self.values)


class EpochScheduler(Scheduler):
    """{first epoch: value}: a value holds until the next one's epoch. Raises UsageError for epochs below 1."""

    def __init__(self, epoch_dict: Mapping[int, Any]):
        for epoch in epoch_dict:
            if not isinstance(epoch, int) or epoch < 1:
                raise UsageError(f"an EpochScheduler needs epochs that are integers from 1, got {epoch!r}.")
        if not epoch_dict:
            raise UsageError("an EpochScheduler needs at least one epoch, got none.")
        self.epochs = sorted(epoch_dict)
        self.values = [epoch_dict[epoch] for epoch in self.epochs]
        self.settled = self.epochs[-1]

    def index(self, epoch: int) -> int | None:
        """The last value whose epoch has come."""
        begun = sum(first <= epoch for first in self.epochs)
        return begun - 1 if begun else None


class RepeatScheduler(Scheduler):
    """One value after another, an epoch each, again and again. Raises UsageError for fewer than two."""

    def __init__(self, repeat_list: Sequence[Any]):
        if len(repeat_list) < 2:
            raise UsageError(f"a RepeatScheduler needs at least 2 values, got {len(repeat_list)}.")
        self.values = list(repeat_list)
        self.period = len(self.values)

    def index(self, epoch: int) -> int:
        """The values in turn; epoch 1 has the first."""
        return (epoch - 1) % len(self.values)


class ScheduledOp(Nested):
    """An op that is another one in other epochs, or none: what a network makes of a Scheduler among its ops.

    The step is compiled once for every value that comes up. In evaluation it is what it was in the last training step.
    """

    steps_per_epoch = 1  # set by who counts epochs

    def __init__(self, scheduler: Scheduler):
        super().__init__(scheduler.values)
        self.scheduler, self.place = scheduler, scheduler.index(1)

    def phase(self, step: int) -> Hashable:
        """Which op a training step has, and that op's own phase."""
        self.place = self.scheduler.index(step // self.steps_per_epoch + 1)
        op = None if self.place is None else self.ops[self.place]
        return self.place, None if op is None else op.phase(step)

    def resolved(self, phase: Any) -> tuple[Op | None, Hashable]:
        """The op of a phase; without one that of the last training step `phase` was asked about, or of epoch 1."""
        place, inner = (self.place, None) if phase is None else phase
        return None if place is None else self.ops[place], inner
