"""A network: a list of ops over one flat data dictionary, and the updates that train its models."""

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from runtime import graphs
from runtime.errors import UsageError
from runtime.nested import Nested, passed
from runtime.op import Batch, Context, Halt, Op, as_list
from runtime.scheduler import ScheduledOp, Scheduler
from runtime.seed import step_key
from runtime.slots import first_paths, snapshot, write
from runtime.upload import to_device
from runtime.watch import Watch
from training.update import UpdateOp


class Network:
    """Runs ops (one or several) in order; `UpdateOp`s among them say which loss trains which leaves.

    models: every module once, by name. Ops after the last update see the weights from before it.
    """

    def __init__(self, ops: Sequence[Op | Scheduler] | Op | Scheduler):
        self.ops = [ScheduledOp(op) if isinstance(op, Scheduler) else op for op in as_list(ops)]
        for op in self.ops:
            if isinstance(op, type) or not hasattr(op, "models"):
                raise UsageError(f"a network is made of ops, got {op!r}.")
        self.updates = [op for op in self.ops if isinstance(op, UpdateOp)]
        for op in self.ops:
            if isinstance(op, Nested) and any(isinstance(inner, UpdateOp) for inner in op.every()):
                raise UsageError(
                    f"an UpdateOp can't stand inside of {type(op).__name__}; needed: the UpdateOp itself among the "
                    "network's ops (its rate may be scheduled)."
                )
        last = max((i for i, op in enumerate(self.ops) if isinstance(op, UpdateOp)), default=len(self.ops))
        self.before = [op for op in self.ops[:last] if not isinstance(op, UpdateOp)]
        self.after = self.ops[last + 1 :]
        self.models = self._collect_models()
        graphs.choose(self.models.values())
        self.first_paths = first_paths(self.models)
        self.metrics = tuple(dict.fromkeys(key for op in self.ops for key in op.metrics))
        self.carry = tuple(dict.fromkeys(key for op in self.ops for key in op.carry))
        self.watch: Watch | None = None  # the warm-up's notes, while it builds graphs

    def _collect_models(self) -> dict[str, nn.Module]:
        names: dict[int, str] = {}
        models: dict[str, nn.Module] = {}
        for op in self.ops:
            for name, model in op.models.items():
                if id(model) in names:
                    continue
                if name in models and name == "model":
                    name = next(f"model{i}" for i in itertools.count(1) if f"model{i}" not in models)
                if name in models:
                    raise UsageError(f"two models are named {name!r}; give each model of a network its own name.")
                names[id(model)], models[name] = name, model
        return models

    @property
    def looking_up(self) -> Op | None:
        """The op that has a table; UsageError where several have one."""
        found = [op for op in self.ops if op.table is not None]
        if len(found) > 1:
            raise UsageError(f"a network may have one op with a table, got {len(found)}.")
        return found[0] if found else None

    def path_of(self, model: nn.Module, leaf: str) -> str:
        """The one path of a model's leaf among all models; a module may be part of several."""
        path = f"{self.name_of(model)}.{leaf}"
        return self.first_paths.get(path, path)

    def name_of(self, model: nn.Module) -> str:
        """The name under which the network holds `model`; UsageError where it doesn't."""
        for name, own in self.models.items():
            if own is model:
                return name
        raise UsageError(f"no op of the network uses this {type(model).__name__}; give one of its models: "
                         f"{', '.join(self.models)}.")  # fmt: skip

    def get_loss_keys(self) -> tuple[str, ...]:
        """The keys that ops declare as losses and those that updates lower."""
        declared = [key for op in self.ops for key in op.losses]
        return tuple(dict.fromkeys([*(update.loss_name for update in self.updates), *declared]))

    def initial_carry(self, batch: Batch) -> Batch:
        """The carry of every op before the first step."""
        carry: Batch = {}
        for op in self.ops:
            carry |= op.initial_carry(batch)
        return carry

    def scheduled(self) -> tuple[Hashable, ...]:
        """Which of their ops the scheduled ones are now."""
        return tuple(op.place for op in self.ops if isinstance(op, ScheduledOp))

    def phases(self, step: int) -> tuple[Hashable, ...]:
        """What every op's `phase` says of a training step."""
        return tuple(op.phase(step) for op in self.ops)

    def forward(self, data: Batch, ctx: Context, ops: Sequence[Op] | None = None) -> Batch:
        """The data dictionary after the ops that are active in `ctx.mode` (by default those before the updates).

        Raises UsageError when an op misses a key or gets shapes that don't fit.
        """
        for model in self.models.values():
            model.train(ctx.mode == "train")
        ops = self.before if ops is None else ops
        phases = None if ctx.phases is None else [ctx.phases[self.ops.index(op)] for op in ops]
        out = passed(ops, dict(data), replace(ctx, run=self._runner(data, ctx, ops), watch=self.watch), phases)
        if self.watch is not None:
            self.watch.ended(out)
        return out

    def transform(self, data: Mapping[str, Any], mode: str = "infer", ds_id: str = "") -> Batch:
        """A batch, as `Pipeline.transform` gives it, after all ops of a mode by the weights as they are.

        Arrays of NumPy or MLX. Nothing is trained, and layer statistics and states of ops stay as they are.
        """
        states = [self.models, [op.state for op in self.ops]]
        held, training = snapshot(states), [model.training for model in self.models.values()]
        zero, batch = mx.array(0, mx.int32), to_device({key: np.asarray(value) for key, value in data.items()})
        try:
            ctx = Context(mode, step_key(0, 0), zero, zero, ds_id=ds_id)
            out = self.forward(batch, ctx, [*self.before, *self.after])
            mx.eval(out)
        finally:
            write(states, held)
            for model, before in zip(self.models.values(), training, strict=True):
                model.train(before)
        return out

    def _runner(self, given: Batch, ctx: Context, ops: Sequence[Op]) -> Callable[[Batch, Op], Batch]:
        states = {"models": self.models, "ops": {str(i): op.state for i, op in enumerate(self.ops)}}
        ops = [*self.before, *self.after] if ops is self.after else ops

        def run(changed: Batch, op: Op) -> Batch:
            held, inside = snapshot(states), replace(ctx, changed={**ctx.changed, **changed}, halt=Halt(op))
            try:
                return self.forward({**given, **changed}, inside, ops)
            finally:  # what a second run makes of layer statistics and op states is thrown away
                write(states, held)

        return run


class Mixed:
    """A model called in a lower precision: its first input is cast on the way in, outputs to float32 on the way out.

    Times and conditions keep their precision (bf16 tells only 256 times apart); the model casts what it makes of them.
    The weights are cast by the step; attributes are the model's own.
    """

    def __init__(self, model: nn.Module, dtype: mx.Dtype):
        self._model, self._dtype = model, dtype

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output, every floating array of it in float32."""
        first, *others = args
        out = self._model(self._cast(first, self._dtype), *others, **kwargs)
        return tuple(self._cast(o, mx.float32) for o in out) if isinstance(out, tuple) else self._cast(out, mx.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @staticmethod
    def _cast(value: Any, dtype: mx.Dtype) -> Any:
        floating = isinstance(value, mx.array) and mx.issubdtype(value.dtype, mx.floating)
        return value.astype(dtype) if floating else value


def trained_paths(network: Network, updates: Sequence[UpdateOp]) -> list[str]:
    """The paths (model name first) of all leaves that some updates train, each once."""
    return list(dict.fromkeys(network.path_of(u.model, path) for u in updates for path in u.owner))
