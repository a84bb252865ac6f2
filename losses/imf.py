"""Improved MeanFlow: a velocity loss through the average velocity (Geng et al., arXiv 2512.02012), with our clock.

The paper has noise at t=1 and the state at the END of [r, t]; here noise is at t=0 and the state z_r at the START:

    V = u(z_r, r, t) - (t - r) sg(d/dr u)                       the compound, regressed on v_g: note the MINUS
    d/dr u = du/dz v_c + du/dr, one jvp with tangents (v_c, dr=1, dt=0), v_c the model's OWN velocity at (z_r, r):
             its v head's, or without one the boundary u(z_r, r, r)
    v_g = v + (1 - 1/W) (v_c - v_none),  W = w where r lies in [low, high], else 1

MeanFlow's tangent is v = x - e, which the network can't know; V sees only z_r, so its regression is a plain one. The
guidance scale w and its interval are conditions of the network: one network samples at any guidance, in one pass.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx

from losses.average_velocity import AverageVelocity, Rows, adaptive_weight, average, average_of, evaluate, row_sums
from losses.conditioning import unlabelled
from losses.pairs import SortedPairs
from losses.paths import LogitNormal, beside
from runtime.errors import UsageError
from runtime.op import AverageField, Batch, Context


class IMF(AverageVelocity):
    """The weighted squared error between V and v_g, and between the v head and v_g where the model has one.

    pairs: sampler of (r, t) (None: ImageNet's, two of LogitNormal(0.4)). jvp_share: share of rows with r < t. power,
    eps: of the adaptive weight, of either error. velocity_head: the model returns (u, v) for velocity_head=True (iMF's
    transformer does). guidance_max: above 1 the model is called with guidance (B,), w = exp(uniform ln(guidance_max)),
    and interval (B, 2), low in [0, 1/2] and high in [1/2, 1], but all of [0, 1] where r = t; 1: with neither.
    guidance, guided_from, guided_to: w and the interval when sampling. Rows whose label was dropped keep v. The rest
    as in Conditional; with guidance_max = 1 guidance takes a second pass, as there.
    """

    def __init__(
        self,
        pairs: Callable | None = None,
        jvp_share: float = 0.5,
        power: float = 1.0,
        eps: float = 1e-2,
        velocity_head: bool = False,
        guidance_max: float = 1.0,
        conditions: tuple | list = (),
        label_dropout: float = 0.0,
        guidance: float = 1.0,
        guided_from: float = 0.0,
        guided_to: float = 1.0,
    ):
        pairs = pairs or SortedPairs(LogitNormal(0.4, 1.0))
        super().__init__(pairs, jvp_share, conditions, label_dropout, guidance)
        if eps <= 0:
            raise UsageError(f"IMF: eps must be positive, got {eps}.")
        if guidance_max < 1:
            raise UsageError(f"IMF: guidance_max must be at least 1 (no guidance), got {guidance_max}.")
        if guidance_max > 1 and "label" not in self.conditions:
            raise UsageError(f"IMF: guidance_max={guidance_max} guides by label: conditions must hold 'label', "
                             f"got {list(self.conditions)}.")  # fmt: skip
        if guidance_max > 1 and guidance < 1:
            raise UsageError(f"IMF: guidance must be at least 1 (none), got {guidance}.")
        if not 0 <= guided_from <= guided_to <= 1:
            raise UsageError(f"IMF: 0 <= guided_from <= guided_to <= 1 is needed, got {guided_from} and {guided_to}.")
        self.power, self.eps, self.velocity_head, self.guidance_max = power, eps, velocity_head, guidance_max
        self.guided_from, self.guided_to = guided_from, guided_to

    def check(self, model) -> None:
        """Raises UsageError for a model that does not take what it would be called with."""
        super().check(model)
        takes = inspect.signature(type(model).__call__).parameters
        needed = (["velocity_head"] if self.velocity_head else []) + (
            ["guidance", "interval"] if self.guidance_max > 1 else []
        )
        if lacks := [name for name in needed if name not in takes]:
            raise UsageError(f"loss=imf with velocity_head={self.velocity_head} and guidance_max={self.guidance_max} "
                             f"needs a model that takes {', '.join(lacks)} (model=imf_dit does), "
                             f"got {type(model).__name__}.")  # fmt: skip

    def rows(self, batch: Batch, ctx: Context) -> Rows:
        """As in AverageVelocity, with guidance and interval among the conditions where guidance_max is above 1."""
        rows = super().rows(batch, ctx)
        if self.guidance_max == 1:
            return rows
        guidance, interval = self.draw(rows.r.shape[0], rows.moving, mx.random.split(ctx.key, 5)[4])
        return replace(rows, given={**rows.given, "guidance": guidance, "interval": interval})

    def draw(self, count: int, moving: int, key: mx.array) -> tuple[mx.array, mx.array]:
        """w (count,) with density ~ 1/w on [1, guidance_max], and intervals of start times (count, 2)."""
        scale, ends = (mx.random.uniform(shape=shape, key=own) for shape, own in
                       zip([(count,), (count, 2)], mx.random.split(key), strict=True))  # fmt: skip
        interval = mx.where(mx.arange(count)[:, None] < moving, mx.array([0.0, 0.5]) + 0.5 * ends, mx.array([0.0, 1.0]))
        return mx.exp(scale * math.log(self.guidance_max)), interval

    def errors(self, model, rows: Rows, ctx: Context) -> tuple[mx.array, mx.array]:
        """The weighted squares of both errors (B,), and V - v (B, ...)."""
        u, heads, gap, v_g = self.regression(model, rows)
        compound = u - gap
        losses = mx.zeros_like(rows.r)
        for predicted in (compound, *heads):
            squares = row_sums(mx.square(predicted - v_g))
            losses = losses + squares * adaptive_weight(squares, self.power, self.eps)
        return losses, compound - rows.v

    def regression(self, model, rows: Rows) -> tuple[mx.array, list[mx.array], mx.array, mx.array]:
        """u, [v of the head] or [], (t - r) d/dr u and v_g, each (B, ...); no gradient in the last two."""
        v_g, own = self.velocities(model, rows)
        (u, *heads), slope = evaluate(lambda part: self.outputs(model, part), rows, own)
        return u, heads, beside(rows.t - rows.r, u) * slope, v_g

    def outputs(self, model, rows: Rows) -> tuple[mx.array, ...]:
        """(u, v) of a model with a v head, else (u,)."""
        if not self.velocity_head:
            return (average_of(model, rows),)
        times = mx.stack([rows.r, rows.t], axis=1)
        both = model(rows.z, times=times, key=rows.key, velocity_head=True, **rows.given)
        return tuple(out if out.dtype == mx.float64 else out.astype(mx.float32) for out in both)

    def velocities(self, model, rows: Rows) -> tuple[mx.array, mx.array]:
        """v_g (B, ...), and the model's own velocity, the jvp's tangent: all without a gradient and without dropout."""
        if self.guidance_max == 1:
            ahead = rows.part(0, rows.moving)
            return rows.v, self.own_velocity(model, ahead) if rows.moving else ahead.z
        low, high, scale = *mx.split(rows.given["interval"], 2, axis=1), rows.given["guidance"]
        scale = mx.where((rows.r >= low[:, 0]) & (rows.r <= high[:, 0]), scale, 1)
        whole = mx.broadcast_to(mx.array([0.0, 1.0]), rows.given["interval"].shape)
        led = {**rows.given, "guidance": scale, "interval": whole}
        none = {**unlabelled(led), "guidance": mx.ones_like(scale)}
        twice = {name: mx.concatenate([led[name], none[name]]) for name in led}
        z, r = mx.concatenate([rows.z, rows.z]), mx.concatenate([rows.r, rows.r])
        v_c, v_none = mx.split(self.own_velocity(model, replace(rows, z=z, r=r, t=r, given=twice)), 2)
        share = mx.where(rows.given["label"] >= 0, 1 - 1 / scale, 0)
        return rows.v + beside(share, v_c) * (v_c - v_none), v_c

    def own_velocity(self, model, rows: Rows) -> mx.array:
        """The model's velocity at (z, r), (B, ...), without a gradient: the v head's, or u(z, r, r)."""
        return mx.stop_gradient(self.outputs(model, replace(rows, t=rows.r, key=None))[-1])

    def average_velocity(self, model, **conditions: mx.array) -> AverageField:
        """u(x, r, t) at `guidance`, in one pass where the model was trained with it."""
        if self.guidance_max == 1:
            return super().average_velocity(model, **conditions)

        def field(x: mx.array, r: mx.array, t: mx.array) -> mx.array:
            start, end, scale = (mx.broadcast_to(value, (x.shape[0],)) for value in (r, t, mx.array(self.guidance)))
            interval = mx.broadcast_to(mx.array([self.guided_from, self.guided_to]), (x.shape[0], 2))
            return average(model, x, start, end, guidance=scale, interval=interval, **conditions).astype(x.dtype)

        return field
