"""What FastEstimator's traces know as `self.system`."""

from typing import Any


class System:
    """A trace's estimator under FastEstimator's names; everything else is the estimator's own.

    Only `stop_training` can be set. global_step counts steps done, so in on_batch_begin it is one less than there.
    """

    __slots__ = ("_estimator",)

    def __init__(self, estimator: Any):
        self._estimator = estimator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._estimator, name)

    @property
    def global_step(self) -> int:
        """Training steps done."""
        return self._estimator.step

    @property
    def epoch_idx(self) -> int:
        """The epoch of the event, from 1."""
        return self._estimator._now

    @property
    def total_epochs(self) -> int | None:
        """The epochs that the training is to take."""
        return self._estimator.epochs

    @property
    def stop_training(self) -> bool:
        """Whether the training ends after this step; setting it to True asks for that."""
        return bool(self._estimator._reason)

    @stop_training.setter
    def stop_training(self, wanted: bool) -> None:
        if wanted:
            self._estimator.stop("a trace set stop_training")
