"""The op that calls a model."""

import inspect
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from runtime.op import Context, TensorOp, by_name
from runtime.slots import snapshot, write


class ModelOp(TensorOp):
    """Calls `model` on the inputs (B, ...), one argument each, and writes the array or arrays (B, ...) that it returns.

    A model whose `__call__` has a parameter `key` gets this op's PRNG key. trainable: False lets no gradient into the
    model's weights here (gradients still pass through it to the inputs).
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str | Sequence[str],
        outputs: str | Sequence[str],
        mode: str | Sequence[str] | None = None,
        ds_id: str | Sequence[str] | None = None,
        trainable: bool = True,
    ):
        super().__init__(inputs, outputs, mode, ds_id)
        self.model, self.trainable = model, trainable
        self.models = by_name(model)
        self.keyed = "key" in inspect.signature(type(model).__call__).parameters

    def forward(self, data: Any, state: Context) -> Any:
        """The model's output: an array, or a list where it has several."""
        arguments = data if self.in_list else [data]
        options = {"key": state.key} if self.keyed else {}
        model = state.wrap(self.model)
        if self.trainable:
            return model(*arguments, **options)
        held = snapshot(self.model)
        stopped = {path: mx.stop_gradient(leaf) for path, leaf in held.items()}
        write(self.model, stopped)
        try:
            return model(*arguments, **options)
        finally:  # layer statistics that the call has moved stay
            now = snapshot(self.model)
            write(self.model, {path: held[path] for path, leaf in now.items() if leaf is stopped[path]})
