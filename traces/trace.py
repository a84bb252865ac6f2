"""What a callback is: hooks that the loop calls, in the order in which the traces are listed."""

from collections.abc import Sequence
from typing import Any

from runtime.op import Batch, as_tuple


class Trace:
    """A callback. inputs: data keys it wants to see in on_batch_end. mode: as for ops ("train", "!train", ...).

    Every hook is called in each of the trace's modes; on_begin, on_log, on_step_end, on_end and on_close only in
    "train". `estimator` is set before on_begin.
    """

    inputs: tuple[str, ...] = ()
    mode: str | Sequence[str] | None = None
    estimator: Any = None

    def __init__(self, inputs: str | Sequence[str] = (), mode: str | Sequence[str] | None = None):
        self.inputs, self.mode = as_tuple(inputs), mode
        self.name = type(self).__name__  # under which a checkpoint keeps its state

    def on_begin(self) -> None:
        """Before the first step of this sitting."""

    def on_epoch_begin(self) -> None:
        """Before the first batch of an epoch or of an evaluation."""

    def on_batch_begin(self) -> None:
        """Before a step."""

    def on_batch_end(self, data: Batch) -> None:
        """After a step or an evaluation batch; `data` holds losses, what updates report and the declared inputs."""

    def on_epoch_end(self) -> None:
        """After the last batch; in an evaluation its losses are in `estimator.summary.latest`."""

    def on_log(self, values: dict[str, Any]) -> None:
        """When somebody logs values for the current step."""

    def on_step_end(self) -> None:
        """After everything that belongs to a step, evaluation included: the place to save."""

    def on_end(self) -> None:
        """After a training that came to its end."""

    def on_close(self) -> None:
        """Always, also after an error or a signal."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep of this trace, JSON-able."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
