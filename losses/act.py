"""Deep supervision with adaptive computation time, for models that refine an answer step by step.

A row of the batch stays for several training steps: latent states, its puzzle and its count of steps are carried over.
Where it has halted, a new puzzle takes its place. Source: HRM (arXiv 2506.21734, section 2), TRM (arXiv 2510.04871,
section 4.1) and their repositories.
"""

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from domains.puzzles import IGNORED, halts
from runtime.errors import UsageError
from runtime.op import Batch, Context, Objective, masked_mean

DATA = ("x", "label", "puzzle")
CARRY = ("carry_y", "carry_z", "carry_steps", "carry_halted", *(f"carry_{name}" for name in DATA))
METRICS = ("accuracy", "exact_accuracy", "q_halt_accuracy", "steps", "token_loss", "q_halt_loss")


def log_stablemax(logits: mx.array) -> mx.array:
    """ln s(x) - ln sum s(x) over the last axis, s(x) = x + 1 from 0 on and 1 / (1 - x) below (arXiv 2501.04697)."""
    x = logits.astype(mx.float32)
    up = x >= 0
    size = mx.where(up, x, -x)
    total = mx.where(up, size + 1, 1 / (1 + size)).sum(axis=-1, keepdims=True)
    return mx.where(up, 1.0, -1.0) * mx.log1p(size) - mx.log(total)


def log_softmax(logits: mx.array) -> mx.array:
    """The usual one, over the last axis of logits (..., V) in float32."""
    x = logits.astype(mx.float32)
    return x - mx.logsumexp(x, axis=-1, keepdims=True)


def binary_cross_entropy(logits: mx.array, target: mx.array) -> mx.array:
    """-ln of the probability that sigmoid(logits) gives to `target`, elementwise and safe for any logits."""
    return mx.logaddexp(0.0, logits) - logits * target


def rows_where(condition: mx.array, a: mx.array, b: mx.array) -> mx.array:
    """Rows of a (B, ...) where the condition (B,) holds, of b elsewhere."""
    return mx.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)


class ACT(Objective):
    """Cross-entropy of the answer and of the halting logits, one supervision step a training step.

    steps: supervision steps at most, in evaluation always. exploration: share of rows that must go on for a random
    number of steps. q_continue: HRM's second halting logit, trained on what the next step says; without it a row halts
    once its first logit is positive. softmax: instead of stablemax. Metrics of a training step are over the rows that
    halt in it, NaN where none does; those of an evaluation over all rows after the last step.
    """

    carry = CARRY
    metrics = METRICS
    extras = (*METRICS, *CARRY)
    identifier = "puzzle"

    def __init__(self, steps: int = 16, exploration: float = 0.1, q_continue: bool = False, softmax: bool = False):
        if steps < 1:
            raise UsageError(f"ACT: steps must be at least 1, got {steps}.")
        if not 0 <= exploration <= 1:
            raise UsageError(f"ACT: exploration must lie between 0 and 1, got {exploration}.")
        self.steps, self.exploration, self.q_continue = steps, exploration, q_continue
        self.log_probability = log_softmax if softmax else log_stablemax
        self._stepper: tuple[nn.Module, Callable] | None = None

    def check(self, model: nn.Module) -> None:
        """Raises UsageError for a model without latent states to start from."""
        if not hasattr(type(model), "start"):
            raise UsageError(f"loss=act trains recursive models such as model=trm; {type(model).__name__} is none.")

    def initial_carry(self, model, batch: Batch) -> Batch:
        """Rows that have all halted, so that the first batch takes their places."""
        count = len(batch["x"])
        y, z = model.start(count)
        carry = {"y": y, "z": z, "steps": mx.zeros(count, mx.int32), "halted": mx.ones(count, mx.bool_)}
        carry |= {name: mx.zeros_like(batch[name]) for name in DATA}
        return {f"carry_{name}": mx.contiguous(array) for name, array in carry.items()}

    def ids(self, data: Batch) -> mx.array:
        """The puzzles (B,) that a step works on: those carried, new ones where rows have halted."""
        if "carry_puzzle" not in data:
            return data["puzzle"]
        return rows_where(data["carry_halted"], data["puzzle"], data["carry_puzzle"])

    def __call__(self, model, batch: Batch, ctx: Context) -> tuple[mx.array, Batch]:
        """Loss in float32; the metrics, and in training the new carry."""
        if ctx.mode != "train":
            return self.judge(model, batch)
        halted = batch["carry_halted"]
        data = {name: rows_where(halted, batch[name], batch[f"carry_{name}"]) for name in DATA}
        starts = zip(model.start(len(halted)), (batch["carry_y"], batch["carry_z"]), strict=True)
        y, z = (rows_where(halted, start, old) for start, old in starts)
        steps = mx.where(halted, 0, batch["carry_steps"]) + 1
        rows = batch.get("rows")
        y, z, logits, q = model(data["x"], y, z, rows)
        last = steps >= self.steps
        ends = last
        if self.steps > 1:
            ends = (last | halts(q, self.q_continue)) & (steps >= self.least(ctx.key, len(steps)))
        loss, metrics = self.losses(logits, q, data["label"])
        if self.q_continue:
            q_next = mx.stop_gradient(model(data["x"], y, z, rows)[3])
            target = mx.sigmoid(mx.where(last, q_next[:, 0], q_next.max(axis=-1)))
            loss = loss + 0.5 * binary_cross_entropy(q[:, 1], target)
        metrics["steps"] = steps
        kept = {name: mx.stop_gradient(value.astype(mx.float32)) for name, value in metrics.items()}
        found = {name: halted_mean(kept[name], ends & counted(data["label"])) for name in METRICS[:4]}
        found |= {name: kept[name].mean() for name in METRICS[4:]}
        carry = {"y": y, "z": z, "steps": steps, "halted": mx.stop_gradient(ends), **data}
        return loss.mean(), found | {f"carry_{name}": array for name, array in carry.items()}

    def least(self, key: mx.array, count: int) -> mx.array:
        """Steps (count,) that a row must have had to halt: 0, or for the explorers a number from 2 to `steps`."""
        chosen, number = mx.random.split(key)
        explores = mx.random.uniform(shape=(count,), key=chosen) < self.exploration
        return mx.where(explores, mx.random.randint(2, self.steps + 1, (count,), key=number), 0)

    def losses(self, logits: mx.array, q: mx.array, label: mx.array) -> tuple[mx.array, Batch]:
        """The loss (B,) without the part of q_continue, and per row (B,) what METRICS name but the steps.

        logits (B, S, V), q (B, 2), label (B, S).
        """
        valid = label != IGNORED
        number = mx.maximum(valid.sum(axis=-1), 1)
        chosen = mx.arange(logits.shape[-1]) == label[..., None]
        likelihood = mx.where(chosen, self.log_probability(logits), 0).sum(axis=(-1, -2))  # of no token where ignored
        right = valid & (logits.argmax(axis=-1) == label)
        exact = right.sum(axis=-1) == valid.sum(axis=-1)
        token, halt = -likelihood / number, binary_cross_entropy(q[:, 0], exact.astype(mx.float32))
        rows = {"accuracy": right.sum(axis=-1) / number, "exact_accuracy": exact,
                "q_halt_accuracy": (q[:, 0] >= 0) == exact, "token_loss": token, "q_halt_loss": halt}  # fmt: skip
        return token + 0.5 * halt, rows

    def judge(self, model, batch: Batch) -> tuple[mx.array, Batch]:
        """Loss and metrics (B,) of the answers after all steps, from the start and without exploration."""
        y, z = model.start(len(batch["x"]))
        logits, q = mx.zeros(()), mx.zeros(())
        for _ in range(self.steps):
            y, z, logits, q = model(batch["x"], y, z, batch.get("rows"))
        loss, rows = self.losses(logits, q, batch["label"])
        rows["steps"] = mx.full(len(loss), self.steps)
        return masked_mean(loss, batch.get("mask")), {name: rows[name].astype(mx.float32) for name in METRICS}

    def rollout(self, model, batch: Batch, steps: int | None = None) -> Iterator[tuple[mx.array, ...]]:
        """After every supervision step the predicted tokens (B, S) int32, the first halting logit (B,) and whether the
        model would stop there (B,), as in training but for exploration.

        Without "puzzle" in the batch all have identifier 0. steps: None for those of the training. One step
        is compiled, for each shape of batch["x"] once.
        """
        if self._stepper is None or self._stepper[0] is not model:
            self._stepper = (model, mx.compile(self._step(model), inputs=[model.state]))
        y, z = model.start(len(batch["x"]))
        table = getattr(model, "table", None)
        ids = batch["puzzle"] if "puzzle" in batch else mx.zeros(len(batch["x"]), mx.int32)
        if table is not None:
            table.check(ids, "puzzle")
        rows = [] if table is None else [table[ids]]
        for _ in range(self.steps if steps is None else steps):
            y, z, *found = self._stepper[1](batch["x"], y, z, *rows)
            mx.eval(y, z, found)  # else the graphs of all steps are in memory at once
            yield tuple(found)

    def _step(self, model: Any) -> Callable:
        def step(x: mx.array, y: mx.array, z: mx.array, rows: mx.array | None = None):
            y, z, logits, q = model(x, y, z, rows)
            return y, z, logits.argmax(axis=-1).astype(mx.int32), q[:, 0], halts(q, self.q_continue)

        return step


def counted(label: mx.array) -> mx.array:
    """Which rows (B,) of labels (B, S) ask about anything."""
    return (label != IGNORED).any(axis=-1)


def halted_mean(values: mx.array, ends: mx.array) -> mx.array:
    """The mean of values (B,) over the rows that halt, NaN where none does."""
    count = ends.sum()
    return mx.where(count > 0, mx.where(ends, values, 0).sum() / mx.maximum(count, 1), mx.nan)
