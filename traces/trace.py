"""What a callback is: hooks that the loop calls, in the order in which the traces are listed."""

from collections.abc import Sequence
from typing import Any

from runtime.op import as_tuple, check_modes
from training.data import Data
from training.system import System


class Trace:
    """A callback. inputs: data keys it wants to see in on_batch_end. outputs: keys it writes.

    mode, ds_id: as for ops ("train", "!train", ...). Hooks are called in each of the trace's modes; on_begin, on_log,
    on_step_end, on_end and on_close once: in a fit for traces of "train" or "eval", in a test for those of "test".
    ds_id limits batches and what belongs to one data set. `estimator` is set before on_begin.
    everywhere: of several processes that train together each has it, not only rank 0, which writes; needed where it
    changes what a step computes from its arguments, or where all must call it (a checkpoint).
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    mode: str | Sequence[str] | None = None
    ds_id: str | Sequence[str] | None = None
    estimator: Any = None
    everywhere: bool = False

    def __init__(
        self,
        inputs: str | Sequence[str] | None = (),
        outputs: str | Sequence[str] | None = (),
        mode: str | Sequence[str] | None = None,
        ds_id: str | Sequence[str] | None = None,
    ):
        check_modes(self, mode)
        self.inputs, self.outputs, self.mode, self.ds_id = as_tuple(inputs), as_tuple(outputs), mode, ds_id
        self.name = type(self).__name__  # under which a checkpoint keeps its state

    @property
    def system(self) -> System:
        """The estimator under FastEstimator's names."""
        return System(self.estimator)

    def on_begin(self, data: Data) -> None:
        """Before the first step of this sitting, or the first batch of a test."""

    def on_epoch_begin(self, data: Data) -> None:
        """Before the first batch of an epoch or of an evaluation."""

    def on_batch_begin(self, data: Data) -> None:
        """Before a step."""

    def on_batch_end(self, data: Data) -> None:
        """After a step or an evaluation batch; `data` holds losses, what updates report and the declared inputs."""

    def on_ds_begin(self, data: Data) -> None:
        """Before the first batch of one data set of an evaluation, where they have names."""

    def on_ds_end(self, data: Data) -> None:
        """After the last batch of one data set of an evaluation, where they have names; `data` holds its losses.

        What is written here under "key" is "key|<ds_id>" in on_epoch_end.
        """

    def on_epoch_end(self, data: Data) -> None:
        """After the last batch; in an evaluation `data` holds its losses."""

    def on_log(self, values: dict[str, Any]) -> None:
        """When somebody logs values for the current step."""

    def on_step_end(self) -> None:
        """After everything that belongs to a step, evaluation included: the place to save."""

    def on_end(self, data: Data) -> None:
        """After a training or a test that came to its end."""

    def on_close(self) -> None:
        """Always, also after an error or a signal."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep of this trace, JSON-able."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
