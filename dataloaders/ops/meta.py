"""Ops made of others on the host: in order, at random, one of several, again and again."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from dataloaders.ops.numpy_op import Batch, Delete, FilteredData, NumpyOp
from dataloaders.samples import applied, passed
from runtime.errors import UsageError

Data = dict[str, Any]


class MetaOp(NumpyOp):
    """An op made of others; a subclass sets `inputs` and `outputs` and gives `run`.

    Its mode and ds_id are those of its ops, which must agree. Random numbers come from state["rng"], one draw for a
    sample before `Batch` and one for a batch after it.
    """

    def __init__(self, ops: Sequence[NumpyOp]):
        for op in ops:
            if not isinstance(op, NumpyOp) or isinstance(op, Batch):
                raise UsageError(f"{type(self).__name__} needs NumpyOps other than Batch, got {type(op).__name__}.")
        kinds = dict.fromkeys((str(op.mode), str(op.ds_id)) for op in ops)
        if len(kinds) != 1:
            got = " and ".join(map(str, kinds)) or "no ops"
            raise UsageError(f"{type(self).__name__} needs ops of one mode and ds_id, got {got}.")
        super().__init__(mode=ops[0].mode, ds_id=ops[0].ds_id)
        self.ops, self.masks = tuple(ops), any(op.masks for op in ops)

    def run(self, data: Data, state: Any, batched: bool) -> Data | FilteredData:
        """The data after the ops; `data` is its own copy."""
        raise NotImplementedError

    def forward(self, data: Any, state: Any) -> Any:
        """The outputs by name, or FilteredData."""
        return self.run(dict(zip(self.inputs, data, strict=True)), state, batched=False)

    def forward_batch(self, data: Any, state: Any) -> Any:
        """The same for a batch."""
        return self.run(dict(zip(self.inputs, data, strict=True)), state, batched=True)

    def named(self, found: Data) -> Data:
        """What `run` left: the outputs, and None for inputs that are gone."""
        gone = dict.fromkeys(name for name in self.inputs if name not in found)
        return {**gone, **{name: found[name] for name in self.outputs if name in found}}

    def set_rua_level(self, magnitude_coef: float) -> None:
        """Sets how strong its ops are, 0 to 1, for RUA; UsageError where one has no strength."""
        for op in self.ops:
            set_level(op, magnitude_coef)


def set_level(op: NumpyOp, magnitude_coef: float) -> None:
    """Calls the op's `set_rua_level`; UsageError where it has none."""
    if not hasattr(op, "set_rua_level"):
        raise UsageError(f"RUA needs ops with a method set_rua_level(magnitude_coef), which {type(op).__name__} lacks.")
    op.set_rua_level(magnitude_coef)  # type: ignore[attr-defined]


class Fuse(MetaOp):
    """Runs ops in order as one op.

    inputs: what no earlier op of it writes. outputs: all that they write and leave.
    """

    def __init__(self, ops: NumpyOp | Sequence[NumpyOp]):
        ops = [ops] if isinstance(ops, NumpyOp) else list(ops)
        super().__init__(ops)
        needed, written = {}, {}
        for op in ops:
            needed |= {name: None for name in op.inputs if name not in written}
            written |= dict.fromkeys(op.outputs)
            for name in op.inputs if isinstance(op, Delete) else ():
                written.pop(name, None)
        self.inputs, self.outputs = tuple(needed), tuple(written)

    def run(self, data: Data, state: Any, batched: bool) -> Data | FilteredData:
        """The data after all ops; FilteredData as soon as one removes the sample."""
        removed = passed(self.ops, data, state, batched)
        return data if removed is None else removed


class Sometimes(MetaOp):
    """Applies an op with probability `prob`; otherwise its outputs keep what the data hold under their names."""

    def __init__(self, numpy_op: NumpyOp, prob: float = 0.5):
        if not 0 <= prob <= 1:
            raise UsageError(f"Sometimes: prob must lie in 0..1, got {prob}.")
        super().__init__([numpy_op])
        self.inputs = tuple(dict.fromkeys([*numpy_op.inputs, *numpy_op.outputs]))
        self.outputs, self.prob = numpy_op.outputs, prob

    def run(self, data: Data, state: Any, batched: bool) -> Data | FilteredData:
        """The op's data, or what was there."""
        if state["rng"].random() >= self.prob:
            return data
        removed = applied(self.ops[0], data, state, batched)
        return data if removed is None else removed


class OneOf(MetaOp):
    """Applies one of several ops with the same inputs, outputs, mode and ds_id, by `probs` (None: equal ones)."""

    def __init__(self, *numpy_ops: NumpyOp, probs: Sequence[float] | None = None):
        super().__init__(numpy_ops)
        names = dict.fromkeys((op.inputs, op.outputs) for op in numpy_ops)
        if len(names) > 1:
            raise UsageError(f"OneOf needs ops with the same inputs and outputs, got {' and '.join(map(str, names))}.")
        if probs is not None and (len(probs) != len(numpy_ops) or abs(sum(probs) - 1) > 1e-8):
            raise UsageError(f"OneOf needs {len(numpy_ops)} probabilities with sum 1, got {probs}.")
        self.inputs, self.outputs, self.probs = numpy_ops[0].inputs, numpy_ops[0].outputs, probs

    def run(self, data: Data, state: Any, batched: bool) -> Data | FilteredData:
        """The chosen op's data."""
        drawn = self.ops[int(state["rng"].choice(len(self.ops), p=self.probs))]
        removed = applied(drawn, data, state, batched)
        return data if removed is None else removed


class Repeat(MetaOp):
    """Applies an op `repeat` times in a row.

    repeat may be a function of data keys, named as its parameters: the op is applied once and then again as long as it
    is true, at most `max_iter` times in all (None: no limit).
    """

    def __init__(self, op: NumpyOp, repeat: int | Callable[..., Any] = 1, max_iter: int | None = None):
        super().__init__([op])
        self.count, self.condition = (repeat, None) if isinstance(repeat, int) else (max_iter, repeat)
        if (self.count is not None and self.count < 1) or (self.condition is None and max_iter is not None):
            raise UsageError(
                "Repeat needs a number from 1 on, or a function and max_iter from 1 on or None, got "
                f"repeat={repeat!r} and max_iter={max_iter}."
            )
        self.names = [] if self.condition is None else list(inspect.signature(self.condition).parameters)
        more = [name for name in self.names if name not in op.outputs]
        self.inputs, self.outputs = tuple(dict.fromkeys([*op.inputs, *more])), op.outputs

    def run(self, data: Data, state: Any, batched: bool) -> Data | FilteredData:
        """The data after the last pass; FilteredData as soon as one removes the sample."""
        passes = 0
        while passes == 0 or self.goes_on(data, passes):
            if (removed := applied(self.ops[0], data, state, batched)) is not None:
                return removed
            passes += 1
        return data

    def goes_on(self, data: Data, passes: int) -> bool:
        """Whether another pass follows."""
        more = self.count is None or passes < self.count
        return more and (self.condition is None or bool(self.condition(*(data[name] for name in self.names))))
