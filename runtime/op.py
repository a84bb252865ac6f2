"""The protocols everything plugs into: Batch, Context, Op, TensorOp, Objective.

A batch is one flat dictionary of arrays whose first axis is the sample. Ops read keys and write keys.
A generative objective is one op: `ObjectiveOp` puts its loss under "loss".
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from runtime.errors import UsageError
from runtime.streams import divided
from runtime.table import Table
from runtime.watch import Watch

Batch = dict[str, mx.array]
NumpyBatch = dict[str, np.ndarray]
Field = Callable[[mx.array, mx.array], mx.array]  # (x, t) -> dx/dt, t a 0-d array
AverageField = Callable[[mx.array, mx.array, mx.array], mx.array]  # (x, r, t) -> mean velocity from r to t, 0-d arrays


@dataclass
class Halt:
    """Where a second run of the graph ends: at `op`, which isn't run again; reached: whether it has come there."""

    op: "Op"
    reached: bool = False


@dataclass
class Context:
    """What an op may know beside its data.

    mode: "train", "eval", "test" or "infer". key: PRNG key of this op, shape (2,) uint32. step, epoch: 0-d int32
    arrays. run(data, op) re-runs the graph from its inputs, some of them changed, up to the op, for input gradients; in
    there `changed` are those data, for watched keys, and `halt` says where it ends. watch: the warm-up's notes.
    wrap(model): the model as an op must call it (casts to the run's precision). phase: what the op's own `phase` said
    of this training step; None outside training. phases: the same for every op of the network. ds_id: the data set's
    name where a mode has several, else "".
    """

    mode: str
    key: mx.array
    step: mx.array
    epoch: mx.array
    run: "Callable[[Batch, Op], Batch] | None" = None
    wrap: Callable[[nn.Module], Any] = lambda model: model
    phase: Hashable = None
    phases: tuple[Hashable, ...] | None = None
    ds_id: str = ""
    changed: Batch = field(default_factory=dict)
    halt: Halt | None = None
    watch: Watch | None = None

    @property
    def halted(self) -> bool:
        """Whether this is a second run that has come to its end."""
        return self.halt is not None and self.halt.reached


def as_tuple(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """One name, several or none, as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names or ())


def as_list(given: Any) -> list:
    """One thing, several or None, as a list."""
    return [] if given is None else list(given) if isinstance(given, Iterable) else [given]


MODES = ("train", "eval", "test", "infer")


def by_name(model: nn.Module) -> dict[str, nn.Module]:
    """A model under the name that `build` noted on it, or else "model"."""
    return {getattr(model, "model_name", None) or "model": model}


class Op:
    """A step of a network: reads `inputs` from the data, writes `outputs`, active in `mode`.

    mode, ds_id: None for all, a name, a list of names, or "!name" for all but one.
    models: modules the op owns by name. state: arrays kept between steps (dict, possibly nested).
    carry: data keys that this op leaves for the next training step. metrics: outputs whose means are worth logging.
    losses: outputs that are losses. table: an embedding of which the step hands the op the rows of its batch as
    data["rows"] (B, E), in training as a leaf; identifier: the batch key that tells them, see `ids`.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    mode: str | Sequence[str] | None = None
    ds_id: str | Sequence[str] | None = None
    carry: tuple[str, ...] = ()
    table: Table | None = None
    identifier: str = ""

    def __init__(
        self,
        inputs: str | Sequence[str] | None = (),
        outputs: str | Sequence[str] | None = (),
        mode: str | Sequence[str] | None = None,
        ds_id: str | Sequence[str] | None = None,
    ):
        check_modes(self, mode)
        self.inputs, self.outputs, self.mode, self.ds_id = as_tuple(inputs), as_tuple(outputs), mode, ds_id
        self.models: dict[str, nn.Module] = {}
        self.state: dict[str, Any] = {}

    def initial_carry(self, batch: Batch) -> Batch:
        """The carry before the first step, shaped after `batch`."""
        return {}

    def ids(self, data: Batch) -> mx.array:
        """The rows of its table (B,) that it needs for a batch, which in training holds the carry too."""
        return data[self.identifier]

    def phase(self, step: int) -> Hashable:
        """What of training step `step` changes the graph; the step is compiled once for each value (None: never)."""
        return None

    def resolved(self, phase: Hashable) -> tuple["Op | None", Hashable]:
        """The op that runs in a phase, and its own phase: itself, but for an op that stands for others."""
        return self, phase

    def __call__(self, data: Batch, ctx: Context) -> Batch:
        """What it adds to the data; a key given as None is taken out of it."""
        return self.forward(data, ctx)

    def forward(self, data: Any, ctx: Context) -> Any:
        """Returns what it adds to the data, a dictionary with the keys of `outputs`."""
        raise NotImplementedError


class TensorOp(Op):
    """An op whose `forward` takes arrays and returns arrays.

    forward(data, state): `data` is the array of the one input, or a list where `inputs` is a list; what it returns is
    an array, or a list in the order of `outputs` where that is a list. `state` is the Context.
    """

    def __init__(
        self,
        inputs: str | Sequence[str] | None = (),
        outputs: str | Sequence[str] | None = (),
        mode: str | Sequence[str] | None = None,
        ds_id: str | Sequence[str] | None = None,
    ):
        super().__init__(inputs, outputs, mode, ds_id)
        self.in_list, self.out_list = not isinstance(inputs, str), not isinstance(outputs, str)

    def __call__(self, data: Batch, ctx: Context) -> Batch:
        """Picks the inputs, runs `forward` and names what it returns; UsageError for a wrong number of outputs."""
        picked = [data[name] for name in self.inputs]
        return self.named(self.forward(picked if self.in_list else picked[0], ctx))

    def named(self, found: Any) -> Batch:
        """What `forward` returned, by the names in `outputs`."""
        if not self.outputs:
            return {}
        values = list(found) if self.out_list and isinstance(found, list | tuple) else [found]
        if len(values) != len(self.outputs) or (not self.out_list and isinstance(found, list | tuple)):
            count = len(found) if isinstance(found, list | tuple) else 1
            raise UsageError(
                f"{type(self).__name__} returned {count} values; needed: {len(self.outputs)} for its outputs "
                f"{', '.join(self.outputs)}."
            )
        return dict(zip(self.outputs, values, strict=True))

    def forward(self, data: Any, state: Context) -> Any:
        """Arrays from arrays."""
        raise NotImplementedError


def check_modes(owner: Any, mode: str | Sequence[str] | None) -> None:
    """Raises UsageError for a mode that there is not, in which an op or trace would never take part."""
    for name in as_tuple(mode):
        if name.removeprefix("!") not in MODES:
            raise UsageError(f"{type(owner).__name__}: mode must be of {', '.join(MODES)} or !MODE, got {name!r}.")


def active(mode: str | Sequence[str] | None, current: str) -> bool:
    """Whether something declared for `mode` takes part in mode `current`; the same for data set names."""
    if mode is None:
        return True
    names = as_tuple(mode)
    if any(name.startswith("!") for name in names):
        return all(name.removeprefix("!") != current for name in names)
    return current in names


def masked_mean(rows: mx.array, mask: mx.array | None = None) -> mx.array:
    """The mean, 0-d, of rows (B,) whose mask (B,) is 1; of all rows without a mask, 0 where the mask has none."""
    if mask is None:
        return rows.mean()
    return mx.where(mask > 0, rows, 0).sum() / mx.maximum((mask > 0).sum(), 1)


class Objective:
    """A training objective: loss, and for generative ones how to sample from what it trained.

    extras: the keys `__call__` returns beside the loss; those in `metrics` are worth logging (their means are). carry:
    data keys kept for the next step. conditions: batch keys handed to the model by name (for example "label").
    identifier: the batch key with the row numbers of `model.table`, for a model that has one.
    """

    extras: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    carry: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    identifier: str = ""

    def __call__(self, model, batch: Batch, ctx: Context) -> tuple[mx.array, Batch]:
        """The scalar loss in float32 and the extra keys."""
        raise NotImplementedError

    def initial_carry(self, model, batch: Batch) -> Batch:
        """The carry before the first step."""
        return {}

    def ids(self, data: Batch) -> mx.array:
        """The rows of the model's table (B,) that it needs for a batch, as Op.ids."""
        return data[self.identifier]

    def phase(self, step: int) -> Hashable:
        """What of training step `step` changes the objective's graph, as Context.phase; see Op.phase."""
        return None

    def check(self, model: nn.Module) -> None:
        """Raises UsageError where the objective can't train this model; by default any will do."""

    def host_ops(self) -> list:
        """NumPy batch ops that the objective needs in the loader (a coupling, for example)."""
        return []

    @property
    def generates(self) -> bool:
        """Whether samples can be drawn: a subclass gives `velocity`, or `sample` itself."""
        return type(self).velocity is not Objective.velocity or type(self).sample is not Objective.sample

    def velocity(self, model, **conditions: mx.array) -> Field:
        """The field (x (B, ...), t 0-d) -> velocity (B, ...) of the generative ODE; t=0 is noise, t=1 data."""
        raise UsageError(f"{type(self).__name__} trains nothing that samples: it has no velocity; use evaluation=none.")

    def average_velocity(self, model, **conditions: mx.array) -> AverageField:
        """The mean velocity u(x, r, t) over the way from time r to t, where the objective trains one."""
        raise UsageError(
            f"{type(self).__name__} trains no average velocity, which solver=average jumps along; needed: an objective "
            "such as loss=meanflow, or an ODE solver (euler, heun, dopri5, ...)."
        )

    def field(self, model, solver, **conditions: mx.array) -> Any:
        """What `solver` integrates: the average velocity for one that jumps along it, else the velocity."""
        return (self.average_velocity if solver.average else self.velocity)(model, **conditions)

    def sample(self, model, noise: mx.array, solver, **conditions: mx.array) -> mx.array:
        """Carries noise (B, ...) at t=0 to samples at t=1; the field of a module is compiled."""
        field = self.field(divided(model), solver, **conditions)
        return solver.solve(mx.compile(field) if isinstance(model, nn.Module) else field, noise)


class ObjectiveOp(Op):
    """An objective as an op: writes its loss, a number, under "loss" and its extras (B, ...) under their names."""

    def __init__(self, model: nn.Module, objective: Objective, name: str = "model"):
        super().__init__(outputs=("loss", *objective.extras))
        self.losses = ("loss",)
        self.models, self.objective, self.name = {name: model}, objective, name
        self.carry, self.metrics = objective.carry, objective.metrics
        self.identifier = objective.identifier
        self.table = getattr(model, "table", None) if self.identifier else None

    def initial_carry(self, batch: Batch) -> Batch:
        """The objective's carry before the first step."""
        return self.objective.initial_carry(self.models[self.name], batch)

    def ids(self, data: Batch) -> mx.array:
        """The objective's."""
        return self.objective.ids(data)

    def phase(self, step: int) -> Hashable:
        """The objective's."""
        return self.objective.phase(step)

    def forward(self, data: Batch, ctx: Context) -> Batch:
        """The objective's loss, a float32 scalar, and its extras; UsageError for a key that the data lack."""
        try:
            loss, extra = self.objective(ctx.wrap(self.models[self.name]), data, ctx)
        except KeyError as error:
            key = error.args[0] if error.args else None
            if not isinstance(key, str) or key in data:
                raise
            raise UsageError(f"{type(self.objective).__name__} misses {key!r} in mode {ctx.mode}; the data has "
                             f"{', '.join(sorted(data))}.") from error  # fmt: skip
        return {"loss": loss, **extra}
