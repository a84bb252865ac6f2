"""alpha-Flow: from flow matching to MeanFlow along a curriculum, no jvp until its end (Zhang et al., arXiv 2510.20771).

The paper has noise at t=1 and the state at the END of [r, t]; here noise is at t=0 and the state z_r at the START.
A step d = alpha (t - r) is taken along v_g, the model, frozen, averages over what is left:

    target = [d v_g + (t - r - d) sg u(z_r + d v_g, r + d, t)] / (t - r)

alpha = 1 is v_g: flow matching. alpha -> 0 is v_g + (t - r) d/dr u: MeanFlow, for which a jvp takes over.
"""

import math
from collections.abc import Callable

import mlx.core as mx

from losses.average_velocity import Rows, adaptive_weight, average, average_of
from losses.conditioning import row_means
from losses.meanflow import MeanFlow
from losses.pairs import SortedPairs
from losses.paths import LogitNormal, beside
from runtime.errors import UsageError
from runtime.op import Context


class AlphaFlow(MeanFlow):
    """Mean squares l of u less its target, weighted alpha / (l + eps), 1 / (l + eps) where r = t or MeanFlow trains.

    pairs: sampler of (r, t) (None: ImageNet's, two of LogitNormal(0.4)). moving_share: share of rows with r < t.
    begin, end: steps between which alpha falls from 1 to 0, a sigmoid of slope `sharpness`: 1 - sigmoid(sharpness
    (step - middle) / (end - begin)); below `least` it is 0, above 1 - `least` 1. clamp: bound of the targets' size,
    but MeanFlow's (None: none; published 4, for latents). omega, kappa and the rest as in MeanFlow. Outside training
    the loss is that of alpha = 0, so that held-out losses compare along the curriculum.
    """

    def __init__(
        self,
        pairs: Callable | None = None,
        moving_share: float = 0.5,
        begin: int = 0,
        end: int = 10_000,
        sharpness: float = 25.0,
        least: float = 0.005,
        clamp: float | None = None,
        eps: float = 1e-3,
        conditions: tuple | list = (),
        label_dropout: float = 0.0,
        omega: float = 1.0,
        kappa: float = 0.0,
        guided_from: float = 0.0,
        guided_to: float = 1.0,
        guidance: float = 1.0,
    ):
        pairs = pairs or SortedPairs(LogitNormal(0.4, 1.0))
        super().__init__(pairs, moving_share, 1.0, eps, conditions, label_dropout, omega, kappa, guided_from, guided_to,
                         guidance)  # fmt: skip
        if not 0 <= begin < end:
            raise UsageError(f"AlphaFlow: 0 <= begin < end is needed, in steps, got {begin} and {end}.")
        if sharpness <= 0:
            raise UsageError(f"AlphaFlow: sharpness must be positive, got {sharpness}.")
        if not 0 < least < 0.5:
            raise UsageError(f"AlphaFlow: least must lie in (0, 0.5), got {least}.")
        if clamp is not None and clamp <= 0:
            raise UsageError(f"AlphaFlow: clamp must be positive or null, got {clamp}.")
        self.begin, self.end, self.sharpness, self.least, self.clamp = begin, end, sharpness, least, clamp

    def phase(self, step: int) -> str:
        """Which target a training step has: "flow" (alpha 1), "between" or "meanflow" (alpha 0)."""
        if not self.begin <= step <= self.end:
            return "flow" if step < self.begin else "meanflow"
        ramp = (step - (self.begin + self.end) / 2) / (self.end - self.begin)
        alpha = 1 / (1 + math.exp(self.sharpness * ramp))
        if alpha < self.least:
            return "meanflow"
        return "flow" if alpha > 1 - self.least else "between"

    def alpha(self, step: mx.array) -> mx.array:
        """The curriculum's sigmoid at a step, 0-d."""
        ramp = (step - (self.begin + self.end) / 2) / (self.end - self.begin)
        return 1 - mx.sigmoid(self.sharpness * ramp)

    def errors(self, model, rows: Rows, ctx: Context) -> tuple[mx.array, mx.array]:
        """The weighted mean squares (B,), and u less its target and v_g - v (B, ...)."""
        weight = mx.ones_like(rows.r)
        if ctx.phase == "between":
            alpha = self.alpha(ctx.step)
            weight = mx.where(rows.r < rows.t, alpha, weight)
            u, target, v_g = self.stepped(model, rows, alpha)
        elif ctx.phase == "flow":
            u, target, v_g = self.stepped(model, rows, None)
        else:
            u, target, v_g = self.regression(model, rows)
        squares = row_means(mx.square(u - target))
        return weight * squares * adaptive_weight(squares, 1.0, self.eps), u - target + v_g - rows.v

    def stepped(self, model, rows: Rows, alpha: mx.array | None) -> tuple[mx.array, mx.array, mx.array]:
        """u, its target without a gradient and v_g, each (B, ...); alpha None: 1, which needs no second pass."""
        v_g = self.guided_velocity(model, rows)
        target = v_g
        ahead = rows.part(0, rows.moving)
        if alpha is not None and rows.moving:
            v = v_g[: rows.moving]
            d = alpha * (ahead.t - ahead.r)
            left = average(model, ahead.z + beside(d, v) * v, ahead.r + d, ahead.t, **ahead.given)
            target = mx.concatenate([alpha * v + (1 - alpha) * left, v_g[rows.moving :]])
        if self.clamp is not None:
            moves = beside(rows.r < rows.t, target)
            target = mx.where(moves, mx.clip(target, -self.clamp, self.clamp), target)
        return average_of(model, rows), mx.stop_gradient(target), v_g
