"""Shortcut models: flow matching, and jumps of size d that equal two of d/2 (Frans et al., arXiv 2410.12557).

The paper's clock is ours, and its s(z, r, d) is the average velocity u(z, r, t) with t = r + d (eq. 3 and 4):

    u(z, r, r) is regressed on v = x - e                                        flow matching, d = 0
    u(z, r, r + d) on [u(z, r, r + d/2) + u(z', r + d/2, r + d)] / 2,           self-consistency, target frozen
              z' = z + d/2 u(z, r, r + d/2)

for d = 1, 1/2, ..., 1/steps and r a multiple of d. At the smallest d both halves ask for d = 0, which is where
guidance comes in. No derivative in time is taken.
"""

from dataclasses import replace

import mlx.core as mx

from losses.average_velocity import AverageVelocity, Rows, average, average_of
from losses.conditioning import row_means, unlabelled
from losses.pairs import DyadicPairs
from losses.paths import beside
from runtime.errors import UsageError
from runtime.op import Batch, Context


class Shortcut(AverageVelocity):
    """Plain squared error on flow-matching rows and self-consistency rows.

    steps: a power of two; 1/steps is the smallest jump and the grid of times (the official denoise_timesteps, which
    counts the velocity as a jump, is twice that). moving_share: share of self-consistency
    rows. clamp: bound of the size of targets and of the states between the halves (None: none; published 4, for
    latents). omega: guidance of the velocities that the smallest jumps are made of, v_none + omega (v_label - v_none).
    The rest as in Conditional; labels are dropped in flow-matching rows alone. The paper's targets come from the
    model's moving average, these from the model itself.
    """

    def __init__(
        self,
        steps: int = 128,
        moving_share: float = 0.25,
        clamp: float | None = None,
        conditions: tuple | list = (),
        label_dropout: float = 0.0,
        omega: float = 1.0,
        guidance: float = 1.0,
    ):
        self.dyadic = DyadicPairs(steps)
        super().__init__(self.dyadic, moving_share, conditions, label_dropout, guidance)
        if moving_share == 1:
            raise UsageError("Shortcut: moving_share must be below 1, got 1: the other rows train the velocity that "
                             "jumps are made of.")  # fmt: skip
        if clamp is not None and clamp <= 0:
            raise UsageError(f"Shortcut: clamp must be positive or null, got {clamp}.")
        if omega != 1 and "label" not in self.conditions:
            raise UsageError(f"Shortcut: omega={omega} guides by label: conditions must hold 'label', "
                             f"got {list(self.conditions)}.")  # fmt: skip
        self.clamp, self.omega = clamp, omega

    def rows(self, batch: Batch, ctx: Context) -> Rows:
        """As in AverageVelocity; rows of self-consistency keep their labels."""
        rows = super().rows(batch, ctx)
        if "label" not in rows.given:
            return rows
        moving = mx.arange(rows.r.shape[0]) < rows.moving
        return replace(rows, given={**rows.given, "label": mx.where(moving, batch["label"], rows.given["label"])})

    def errors(self, model, rows: Rows, ctx: Context) -> tuple[mx.array, mx.array]:
        """The mean squares (B,), and u - v (B, ...) of the rows with r = t, for every row their root mean square."""
        target = rows.v
        if rows.moving:
            target = mx.concatenate([self.two_halves(model, rows.part(0, rows.moving)), rows.v[rows.moving :]])
        squares = row_means(mx.square(average_of(model, rows) - target))
        velocity = squares[rows.moving :] if rows.moving < rows.r.shape[0] else mx.zeros(1)
        return squares, mx.broadcast_to(mx.sqrt(velocity.mean()), squares.shape)

    def two_halves(self, model, rows: Rows) -> mx.array:
        """The mean of the half jumps' velocities (B, ...), with neither gradient nor dropout; all rows must move."""
        half = (rows.t - rows.r) / 2
        first = self.jump(model, rows, rows.z, rows.r, half)
        between = self.bounded(rows.z + beside(half, rows.z) * first)
        second = self.jump(model, rows, between, rows.r + half, half)
        return mx.stop_gradient(self.bounded((first + second) / 2))

    def jump(self, model, rows: Rows, z: mx.array, r: mx.array, d: mx.array) -> mx.array:
        """u(z, r, r + d) (B, ...); below the grid's spacing it is the velocity, and guided."""
        t = mx.where(d * self.dyadic.steps < 1, r, r + d)
        u = average(model, z, r, t, **rows.given)
        if self.omega == 1:
            return u
        smallest = self.dyadic.smallest(rows.moving)
        ahead = rows.part(0, smallest)
        none = average(model, z[:smallest], r[:smallest], t[:smallest], **unlabelled(ahead.given))
        return mx.concatenate([none + self.omega * (u[:smallest] - none), u[smallest:]])

    def bounded(self, x: mx.array) -> mx.array:
        """x with its values kept in [-clamp, clamp]."""
        return x if self.clamp is None else mx.clip(x, -self.clamp, self.clamp)
