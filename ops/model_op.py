"""The op that calls a model."""

import inspect
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from runtime.calls import modules_in, watched
from runtime.errors import UsageError, closest
from runtime.op import Context, TensorOp, as_tuple, by_name
from runtime.slots import snapshot, write


class ModelOp(TensorOp):
    """Calls `model` on the inputs (B, ...), one argument each, and writes the array or arrays (B, ...) that it returns.

    A model whose `__call__` has a parameter `key` gets this op's PRNG key. trainable: False lets no gradient into the
    model's weights here (gradients still pass through it to the inputs).
    intermediate_layers: paths of modules inside of the model ("blocks.2", "layers.0.conv"), whose outputs (B, ...) of
    the same forward pass follow the model's own in `outputs`; of one that is called several times the last.
    Raises UsageError for a path that is not there, a layer that isn't called or doesn't give one array, and for layers
    of a model with gradient checkpointing, whose insides no gradient reaches from outside.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str | Sequence[str],
        outputs: str | Sequence[str],
        mode: str | Sequence[str] | None = None,
        ds_id: str | Sequence[str] | None = None,
        trainable: bool = True,
        intermediate_layers: str | Sequence[str] | None = None,
    ):
        super().__init__(inputs, outputs, mode, ds_id)
        self.layers = {path: self._layer(model, path) for path in as_tuple(intermediate_layers)}
        self.model, self.trainable = model, trainable
        self.models = by_name(model)
        self.keyed = "key" in inspect.signature(type(model).__call__).parameters

    @staticmethod
    def _layer(model: nn.Module, path: str) -> nn.Module:
        inside = dict(modules_in(model))
        if path not in inside or not path:
            raise UsageError(
                f"ModelOp: {type(model).__name__} has no layer {path!r}; nearest: {closest(path, list(inside)[1:])}."
            )
        if any(getattr(module, "checkpoint", False) for module in inside.values()):
            raise UsageError(
                f"ModelOp can't give the layer {path!r} of a model with gradient checkpointing: build it with "
                "checkpoint=false."
            )
        return inside[path]

    def forward(self, data: Any, state: Context) -> Any:
        """The model's output: an array, or a list where it has several or where layers' outputs follow it."""
        arguments = data if self.in_list else [data]
        options = {"key": state.key} if self.keyed else {}
        model = state.wrap(self.model)
        if not self.layers:
            return self._called(model, arguments, options)
        found: dict[int, Any] = {}

        def keep(path: str, layer: nn.Module, given: tuple, out: Any) -> Any:
            found[id(layer)] = out
            return out

        with watched(self.layers, keep):
            out = self._called(model, arguments, options)
        own = [self._output(path, found.get(id(layer))) for path, layer in self.layers.items()]
        if model is not self.model:  # called in a lower precision, which ends with the model
            own = [array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array for array in own]
        return [*(out if isinstance(out, list | tuple) else [out]), *own]

    @staticmethod
    def _output(path: str, out: Any) -> mx.array:
        if out is None:
            raise UsageError(f"ModelOp: the model does not call its layer {path!r}; name one that it calls.")
        if not isinstance(out, mx.array):
            raise UsageError(f"ModelOp: the layer {path!r} gives a {type(out).__name__}; needed: one array.")
        return out

    def _called(self, model: Any, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
        """What the model gives, its weights out of the gradients' reach where it isn't trainable."""
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
