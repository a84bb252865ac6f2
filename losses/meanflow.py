"""MeanFlow: regress a model on its own average velocity (Geng et al., arXiv 2505.13447), with this project's clock.

The paper has noise at t=1 and the state at the END of [r, t]; here noise is at t=0 and the state z_r at the START:

    u(z_r, r, t) = v(z_r, r) + (t - r) d/dr u(z_r, r, t)              the identity, eq. 6 mirrored: note the PLUS
    d/dr u = du/dz v + du/dr,  one jvp with tangents (v, dr=1, dt=0)  eq. 8 mirrored
    x_1 = z_0 + u(z_0, 0, 1)                                          sampling, eq. 12 mirrored

With the paper's signs or tangents on this clock the loss still falls, and one-step samples are garbage.
"""

from collections.abc import Callable

import mlx.core as mx

from losses.average_velocity import AverageVelocity, Rows, adaptive_weight, average, average_of, evaluate, row_sums
from losses.conditioning import unlabelled
from losses.paths import beside
from runtime.errors import UsageError
from runtime.op import Context


class MeanFlow(AverageVelocity):
    """The weighted squared error between u and its target v_g + (t - r) d/dr u on the path z_r = (1-r) e + r x.

    pairs: sampler of (r, t), see losses.pairs (None: two uniform draws). jvp_share: share of rows with r < t, the only
    ones that pay for a jvp; the rest trains the instantaneous velocity. power, eps: of the adaptive weight.
    omega, kappa: guidance built into the target where r lies in [guided_from, guided_to] (eq. 13 and 19-21):
    v_g = omega v + kappa u(z, r, r | c) + (1 - omega - kappa) u(z, r, r | none), so that guided samples cost no second
    pass; omega 1, kappa 0 is none. Rows whose label was dropped keep v. The rest as in Conditional.
    """

    def __init__(
        self,
        pairs: Callable | None = None,
        jvp_share: float = 0.25,
        power: float = 1.0,
        eps: float = 1e-2,
        conditions: tuple | list = (),
        label_dropout: float = 0.0,
        omega: float = 1.0,
        kappa: float = 0.0,
        guided_from: float = 0.0,
        guided_to: float = 1.0,
        guidance: float = 1.0,
    ):
        super().__init__(pairs, jvp_share, conditions, label_dropout, guidance)
        name = type(self).__name__
        if eps <= 0:
            raise UsageError(f"{name}: eps must be positive, got {eps}.")
        if (omega != 1 or kappa != 0) and "label" not in self.conditions:
            raise UsageError(f"{name}: omega={omega} and kappa={kappa} guide by label: conditions must hold 'label', "
                             f"got {list(self.conditions)}.")  # fmt: skip
        self.power, self.eps = power, eps
        self.omega, self.kappa, self.guided_from, self.guided_to = omega, kappa, guided_from, guided_to

    def errors(self, model, rows: Rows, ctx: Context) -> tuple[mx.array, mx.array]:
        """The weighted squares (B,), and u - (t - r) d/dr u - v (B, ...)."""
        u, target, v_g = self.regression(model, rows)
        squares = row_sums(mx.square(u - target))
        return squares * adaptive_weight(squares, self.power, self.eps), u - target + v_g - rows.v

    def regression(self, model, rows: Rows) -> tuple[mx.array, mx.array, mx.array]:
        """u, its target v_g + (t - r) d/dr u without a gradient (eq. 10 and 19 mirrored), and v_g; each (B, ...)."""
        v_g = self.guided_velocity(model, rows)
        (u,), slope = evaluate(lambda own: (average_of(model, own),), rows, v_g)
        return u, v_g + beside(rows.t - rows.r, u) * slope, v_g

    def guided_velocity(self, model, rows: Rows) -> mx.array:
        """v_g (B, ...), without a gradient and without dropout; v itself where nothing guides."""
        z, v, r, given = rows.z, rows.v, rows.r, rows.given
        if self.omega == 1 and self.kappa == 0:
            return v
        rest = 1 - self.omega - self.kappa
        led = self.omega * v
        if self.kappa:
            led = led + self.kappa * average(model, z, r, r, **given)
        if rest:
            led = led + rest * average(model, z, r, r, **unlabelled(given))
        guided = (r >= self.guided_from) & (r <= self.guided_to) & (given["label"] >= 0)
        return mx.stop_gradient(mx.where(beside(guided, v), led, v))
