"""What an LRScheduler asks for the next learning rate where it depends on the run's losses."""

from typing import Any

from runtime.errors import UsageError


class RateController:
    """Reads losses cycle by cycle, a cycle being `frequency` epochs, and says what to multiply the rate by.

    Told by `LRScheduler` on the one process that decides. Raises UsageError for a frequency that is no integer above 0.
    """

    def __init__(self, frequency: int):
        if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
            raise UsageError(f"{type(self).__name__} needs a frequency that is an integer above 0, got {frequency!r}.")
        self.frequency = frequency

    def train_loss(self, loss: float, progress: float) -> None:
        """Takes the loss of a step; progress: the share of the cycle that was done before it, from 0 to 1."""
        raise NotImplementedError

    def eval_loss(self, loss: float) -> None:
        """Takes the loss of an evaluation."""
        raise NotImplementedError

    def multiplier(self, rate: float) -> float:
        """Ends a cycle, whose last step had this rate; the factor of the next cycle's."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep, JSON-able."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        raise NotImplementedError
