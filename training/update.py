"""The op that trains: which loss, which leaves, which optimizer, and the averages kept of the result."""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from runtime.errors import UsageError
from runtime.op import Batch, Op, by_name, masked_mean
from runtime.scheduler import Scheduler
from training.ema import Averages
from training.group import Group, Maker, check_groups

Leaves = dict[str, mx.array]


class UpdateOp(Op):
    """Moves the trainable leaves of `model` down the gradient of `loss_name`.

    optimizer: a name, an mlx optimizer or a callable that makes one, or a Scheduler of such by epochs (each has its own
    state, and where it gives None the weights rest); None: what `build` attached to the model. The rate of a step is
    learning_rate x schedule(step) x scale, where `scale` is state that a trace may lower; learning_rate None is the
    optimizer's own.
    groups: parameter groups, mappings with `match` (a regular expression searched in the leaf's path) and their own
    `optimizer`, `learning_rate` or `schedule`; the first match wins and the rest belongs to the outer one.
    table: a mapping with `optimizer`, `learning_rate` and `schedule` (by default the outer one) for the rows of an op's
    table, see runtime/table.py. The optimizer must keep nothing of a row, as SignSGD. Rows that no batch needs neither
    move nor decay; rows have no EMA and don't count in the gradient norm.
    clip: largest global gradient norm. ema: decays of the averages kept (several at will).
    merge_grad: steps whose gradients are averaged into one update (a step that is not finite is left out of it).
    gradients: a key that holds the gradients by leaf path, as a nest or in the order of the leaves; then no loss is
    differentiated. All gradients are taken before any weight moves and weights move at the end of a step, which is what
    FastEstimator's `defer` asks for; it changes nothing here.
    ds_id: it rests in batches of other data sets. Raises UsageError when a group matches no leaf.
    """

    steps_per_epoch = 1  # set by who counts epochs
    norm_of: Callable[[Leaves], mx.array]  # set by who shards leaves over processes

    def __init__(
        self,
        model: nn.Module,
        loss_name: str = "loss",
        optimizer: Maker | Scheduler | None = None,
        learning_rate: float | None = None,
        schedule: Callable[[mx.array], Any] | None = None,
        clip: float | None = None,
        ema: Sequence[float] = (),
        ema_warmup: bool = True,
        groups: Sequence[Mapping[str, Any]] = (),
        name: str | None = None,
        mode: str | Sequence[str] | None = "train",
        merge_grad: int = 1,
        defer: bool = False,
        gradients: str | None = None,
        ds_id: str | Sequence[str] | None = None,
        table: Mapping[str, Any] | None = None,
    ):
        super().__init__(inputs=loss_name if gradients is None else gradients, mode=mode, ds_id=ds_id)
        if clip is not None and clip <= 0:
            raise UsageError(f"clip must be positive or null, got {clip}.")
        if merge_grad < 1:
            raise UsageError(f"merge_grad must be at least 1, got {merge_grad}.")
        if merge_grad > 1 and ds_id is not None:
            raise UsageError(
                f"an UpdateOp takes merge_grad or ds_id, got merge_grad={merge_grad} with ds_id={ds_id!r}."
            )
        optimizer = getattr(model, "optimizer_fn", None) if optimizer is None else optimizer
        if optimizer is None:
            raise UsageError(
                f"UpdateOp has no optimizer for this {type(model).__name__}; make the model with "
                "build(model_fn, optimizer_fn) or give optimizer=."
            )
        self.model, self.loss_name, self.clip, self.merge_grad = model, loss_name, clip, merge_grad
        self.norm_of = global_norm
        self.gradients, self.defer = gradients, defer
        self.models = {name: model} if name else by_name(model)
        check_groups(groups)
        outer = {"match": "", "learning_rate": learning_rate, "schedule": schedule}
        everything = model.trainable_parameters()
        self.scheduler = optimizer if isinstance(optimizer, Scheduler) else None
        if self.scheduler is not None and any("optimizer" in group for group in groups):
            raise UsageError("a group of an UpdateOp with a scheduled optimizer can't have its own.")
        makers = [optimizer] if self.scheduler is None else self.scheduler.values
        self.turns: list[list[Group] | None] = [
            None if maker is None else [
                Group(**{**outer, "optimizer": maker, **group}, parameters=everything) for group in (*groups, outer)
            ]
            for maker in makers
        ]  # fmt: skip
        if not self.optimized:
            raise UsageError("a scheduled optimizer needs one optimizer at least, got none.")
        self.place = 0 if self.scheduler is None else self.scheduler.index(1)
        leaves = self.leaves()
        if not leaves:
            raise UsageError(f"UpdateOp has nothing to train: this {type(model).__name__} has no trainable arrays "
                             "(frozen, or kept where MLX doesn't see them).")  # fmt: skip
        self.owner = {path: self._owner(path) for path in leaves}
        for turn in self.optimized:
            for i, group in enumerate(turn):
                own = {path: leaf for path, leaf in leaves.items() if self.owner[path] == i}
                if not own and i < len(turn) - 1:
                    raise UsageError(
                        f"parameter group {group.match!r} matches none of {len(leaves)} leaves "
                        f"({', '.join(list(leaves)[:3])}, ...)."
                    )
                group.optimizer.init(own)
        self.averages = Averages(ema, leaves, ema_warmup)
        self.state = {
            "optimizers": [group.optimizer.state for turn in self.optimized for group in turn],
            "ema": self.averages.state,
            "scale": mx.array(1.0),
        }
        self.rows = None if table is None else self._row_group({"schedule": schedule, **table})
        if self.rows is not None:
            self.state["table"] = self.rows.optimizer.state
        if merge_grad > 1:
            zeros = {path: mx.zeros_like(leaf) for path, leaf in leaves.items()}
            self.state["merged"] = {"sums": zeros, "count": mx.array(0, mx.int32)}

    def _row_group(self, settings: Mapping[str, Any]) -> Group:
        if self.merge_grad > 1 or self.scheduler is not None or self.gradients is not None or self.ds_id is not None:
            raise UsageError(
                "UpdateOp(table=...) takes neither merge_grad, gradients, ds_id nor a scheduled optimizer."
            )
        group = Group(**{"match": "", "learning_rate": None, **settings})
        group.optimizer.init({"row": mx.zeros(1)})
        if kept := cast(dict, group.optimizer.state["row"]):
            raise UsageError(
                f"a table needs an optimizer that keeps nothing of a row, such as SignSGD; "
                f"{type(group.optimizer).__name__} keeps {', '.join(kept)}."
            )
        return group

    @property
    def optimized(self) -> list[list[Group]]:
        """The groups of every optimizer that a schedule gives, of the one where there is no schedule."""
        return [turn for turn in self.turns if turn is not None]

    @property
    def groups(self) -> list[Group]:
        """The groups of the last step that `phase` was asked about; those to come first where the weights rest."""
        return (None if self.place is None else self.turns[self.place]) or self.optimized[0]

    def _owner(self, path: str) -> int:
        return next(i for i, group in enumerate(self.optimized[0]) if re.search(group.match, path))

    def leaves(self) -> Leaves:
        """The leaves this update trains, by path."""
        return dict(tree_flatten(self.model.trainable_parameters()))

    def phase(self, step: int) -> Hashable:
        """Which of the scheduled optimizers a step has, and whether weights move in it; None where nothing changes."""
        merged = None if self.merge_grad == 1 else (step + 1) % self.merge_grad == 0
        if self.scheduler is None:
            return merged
        self.place = self.scheduler.index(step // self.steps_per_epoch + 1)
        return self.place, merged

    @property
    def phased(self) -> bool:
        """Whether a step must know its phase."""
        return self.merge_grad > 1 or self.scheduler is not None

    def apply(
        self, gradients: Leaves, parameters: Leaves, step: mx.array, norm: mx.array | None = None, phase: Any = None
    ) -> tuple[Leaves, dict[str, mx.array]]:
        """New leaves and what to log, from gradients averaged over micro-batches; optimizer and averages advance.

        norm: of all gradients, where the caller knows it. phase: the step's, see `phase`.
        """
        place, merged = (0, phase) if self.scheduler is None else phase
        groups, due = None if place is None else self.turns[place], merged is not False
        if groups is None:
            return {}, {"grad_norm": self.norm_of(gradients) if norm is None else norm, "learning_rate": mx.array(0.0)}
        if self.merge_grad > 1:
            gradients, norm = self._merged(gradients, due), None
        norm = self.norm_of(gradients) if norm is None else norm
        if not due:
            return {}, {"grad_norm": norm, "learning_rate": groups[-1].rate(step) * self.state["scale"]}
        if self.clip is not None:
            factor = mx.minimum(1.0, self.clip / (norm + 1e-6))
            gradients = {path: g * factor for path, g in gradients.items()}
        new: Leaves = {}
        for i, group in enumerate(groups):
            own = {path: g for path, g in gradients.items() if self.owner[path] == i}
            if own:
                group.optimizer.learning_rate = group.rate(step) * self.state["scale"]
                new |= group.optimizer.apply_gradients(own, {path: parameters[path] for path in own})
        self.averages.update(new)
        return new, {"grad_norm": norm, "learning_rate": groups[-1].optimizer.learning_rate}

    def moved_rows(self, gradient: mx.array, rows: mx.array, step: mx.array) -> mx.array:
        """New rows (B, E) of the table; the gradient (B, E) is the same where rows are."""
        assert self.rows is not None
        optimizer = self.rows.optimizer
        optimizer.learning_rate = self.rows.rate(step) * self.state["scale"]
        return optimizer.apply_gradients({"row": gradient}, {"row": rows})["row"]

    def _merged(self, gradients: Leaves, due: bool) -> Leaves:
        """The mean of the gradients since the last update, these included; the sums start anew where it is due."""
        merged = self.state["merged"]
        count = merged["count"] + 1
        sums = {path: merged["sums"][path] + g for path, g in gradients.items()}
        merged["sums"].update({path: mx.zeros_like(g) if due else g for path, g in sums.items()})
        merged["count"] = mx.zeros_like(count) if due else count
        return {path: g / count.astype(g.dtype) for path, g in sums.items()}

    def given(self, value: Any) -> Leaves:
        """The gradients under the key `gradients`, by leaf path; UsageError where they are not those of the leaves."""
        paths = list(self.owner)
        if isinstance(value, list | tuple) and all(isinstance(g, mx.array) for g in value) and len(value) == len(paths):
            return dict(zip(paths, value, strict=True))
        found = dict(tree_flatten(value))
        if set(found) != set(paths):
            lacking = sorted(set(paths) - set(found))
            raise UsageError(
                f"the gradients {self.gradients!r} are {len(found)} arrays; needed: one for each of the "
                f"{len(paths)} trained leaves (without one: {', '.join(lacking[:3]) or 'none'})."
            )
        return {path: found[path] for path in paths}


def global_norm(leaves: Leaves) -> mx.array:
    """The Euclidean norm over all leaves, 0-d float32."""
    return mx.sqrt(sum((g.astype(mx.float32).square().sum() for g in leaves.values()), mx.array(0.0)))


def as_number(loss: str, out: Batch) -> mx.array:
    """A loss among the data, 0-d or one a row (B,), as one 0-d float32 number; UsageError where it is neither."""
    if loss not in out or (out[loss].size != 1 and out[loss].ndim != 1):
        got = f"has shape {out[loss].shape}" if loss in out else f"is not among {', '.join(sorted(out))}"
        raise UsageError(f"an update needs the loss {loss!r} as one number or one a row; it {got}.")
    value = out[loss].astype(mx.float32)
    return masked_mean(value, out.get("mask")) if value.size > 1 else value.reshape(())
