"""Ops that are applied at random."""

from typing import Any

import numpy as np

from dataloaders.ops.numpy_op import Batch, NumpyOp
from runtime.errors import UsageError


class Sometimes(NumpyOp):
    """Applies an op with probability `prob`; otherwise its outputs keep what the data hold under their names."""

    def __init__(self, numpy_op: NumpyOp, prob: float = 0.5):
        if isinstance(numpy_op, Batch) or not 0 <= prob <= 1:
            raise UsageError(f"Sometimes needs an op other than Batch and prob in 0..1, got prob={prob}.")
        extra = [name for name in numpy_op.outputs if name not in numpy_op.inputs]
        super().__init__([*numpy_op.inputs, *extra], list(numpy_op.outputs), numpy_op.mode, numpy_op.ds_id)
        self.op, self.prob = numpy_op, prob

    def forward(self, data: Any, state: Any) -> Any:
        """The op's outputs, or what was there."""
        return self.chosen(data, state, self.op.forward)

    def forward_batch(self, data: Any, state: Any) -> Any:
        """The same for a batch, with one draw."""
        return self.chosen(data, state, self.op.forward_batch)

    def chosen(self, data: list, state: Any, forward: Any) -> Any:
        """One draw, and then the op or not."""
        if state["rng"].random() >= self.prob:
            return [data[self.inputs.index(name)] for name in self.outputs]
        picked = data[: len(self.op.inputs)]
        found = forward(picked if self.op.in_list else picked[0], state)
        return found if self.op.out_list else [found]


class OneOf(NumpyOp):
    """Applies one of several ops with the same inputs, outputs, mode and ds_id, by `probs` (None: equal ones)."""

    def __init__(self, *numpy_ops: NumpyOp, probs: list[float] | None = None):
        first = numpy_ops[0]
        names = {(op.inputs, op.outputs, op.in_list, op.out_list, str(op.mode), str(op.ds_id)) for op in numpy_ops}
        if len(names) > 1:
            raise UsageError(f"OneOf needs ops with the same inputs, outputs and modes, got {len(names)} kinds.")
        if probs is not None and (len(probs) != len(numpy_ops) or abs(sum(probs) - 1) > 1e-8):
            raise UsageError(f"OneOf needs {len(numpy_ops)} probabilities with sum 1, got {probs}.")
        super().__init__(first.inputs, first.outputs, first.mode, first.ds_id)
        self.in_list, self.out_list, self.ops, self.probs = first.in_list, first.out_list, numpy_ops, probs

    def forward(self, data: Any, state: Any) -> Any:
        """The chosen op's outputs."""
        return self.drawn(state["rng"]).forward(data, state)

    def forward_batch(self, data: Any, state: Any) -> Any:
        """The same for a batch, with one draw."""
        return self.drawn(state["rng"]).forward_batch(data, state)

    def drawn(self, rng: np.random.Generator) -> NumpyOp:
        """One op."""
        return self.ops[int(rng.choice(len(self.ops), p=self.probs))]
