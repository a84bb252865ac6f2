"""MeanFlow: regress a model on its own average velocity (Geng et al., arXiv 2505.13447), with this project's clock.

The paper has noise at t=1 and the state at the END of [r, t]; here noise is at t=0 and the state z_r at the START:

    u(z_r, r, t) = v(z_r, r) + (t - r) d/dr u(z_r, r, t)              the identity, eq. 6 mirrored: note the PLUS
    d/dr u = du/dz v + du/dr,  one jvp with tangents (v, dr=1, dt=0)  eq. 8 mirrored
    x_1 = z_0 + u(z_0, 0, 1)                                          sampling, eq. 12 mirrored

With the paper's signs or tangents on this clock the loss still falls, and one-step samples are garbage.
"""

import mlx.core as mx

from losses.conditioning import Conditional, masked_mean, row_means, source_points, unlabelled
from losses.pairs import SortedPairs
from losses.paths import beside
from runtime.errors import UsageError
from runtime.op import AverageField, Batch, Context, Field


def average(model, z: mx.array, r: mx.array, t: mx.array, **rest) -> mx.array:
    """u(z, r, t) in float32 (or z's float64): the model at states z (B, ...) of times r, ends t, both (B,)."""
    out = model(z, times=mx.stack([r, t], axis=1), **rest)
    return out if out.dtype == mx.float64 else out.astype(mx.float32)


def row_sums(x: mx.array) -> mx.array:
    """The sum over everything but the rows, (B, ...) -> (B,)."""
    return x.reshape(x.shape[0], -1).sum(axis=1)


def adaptive_weight(squares: mx.array, power: float, eps: float) -> mx.array:
    """1 / (squares + eps)^power without a gradient (eq. 22); power 1 makes every row count alike, 0 is plain MSE."""
    return mx.stop_gradient(1 / (squares + eps) ** power)


class MeanFlow(Conditional):
    """The weighted squared error between u and its target v_g + (t - r) d/dr u on the path z_r = (1-r) e + r x.

    pairs: sampler of (r, t), see losses.pairs (None: two uniform draws). jvp_share: share of rows with r < t, the only
    ones that pay for a jvp; the rest trains the instantaneous velocity. power, eps: of the adaptive weight.
    omega, kappa: guidance built into the target where r lies in [guided_from, guided_to] (eq. 13 and 19-21):
    v_g = omega v + kappa u(z, r, r | c) + (1 - omega - kappa) u(z, r, r | none), so that guided samples cost no second
    pass; omega 1, kappa 0 is none. Rows whose label was dropped keep v. The rest as in Conditional.
    """

    extras = ("velocity_mse",)
    metrics = ("velocity_mse",)

    def __init__(
        self,
        pairs=None,
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
        super().__init__(conditions, label_dropout, guidance)
        if not 0 <= jvp_share <= 1:
            raise UsageError(f"MeanFlow: jvp_share must lie in [0, 1], got {jvp_share}.")
        if eps <= 0:
            raise UsageError(f"MeanFlow: eps must be positive, got {eps}.")
        if (omega != 1 or kappa != 0) and "label" not in self.conditions:
            raise UsageError(f"MeanFlow: omega={omega} and kappa={kappa} guide by label: conditions must hold 'label', "
                             f"got {list(self.conditions)}.")  # fmt: skip
        self.pairs, self.jvp_share, self.power, self.eps = pairs or SortedPairs(), jvp_share, power, eps
        self.omega, self.kappa, self.guided_from, self.guided_to = omega, kappa, guided_from, guided_to

    def __call__(self, model, batch: Batch, ctx: Context) -> tuple[mx.array, Batch]:
        """Loss in float32 and per row "velocity_mse" (B,), the mean square of u - (t - r) d/dr u - v.

        Reads "x" (B, ...), "x0" where there is one (else normal noise), "mask" where there is one, and the conditions.
        """
        noise_key, time_key, dropout_key, label_key = mx.random.split(ctx.key, 4)
        x, training = batch["x"], ctx.mode == "train"
        e = source_points(batch, noise_key)
        moving = round(self.jvp_share * x.shape[0])
        times = self.pairs(x.shape[0], moving, time_key)
        r, t = times[:, 0], times[:, 1]
        given = self.given(batch, training, label_key)
        keys = mx.random.split(dropout_key, 3) if training else [None] * 3
        z, v = (1 - beside(r, x)) * e + beside(r, x) * x, x - e
        v_g = self.guided_velocity(model, z, v, r, given, keys[2])
        u, slope = self.evaluate(model, z, v_g, r, t, given, moving, keys)
        gap = beside(t - r, x) * slope
        squares = row_sums(mx.square(u - mx.stop_gradient(v_g + gap)))
        loss = masked_mean(squares * adaptive_weight(squares, self.power, self.eps), batch)
        return loss, {"velocity_mse": mx.stop_gradient(row_means(mx.square(u - gap - v)))}

    def guided_velocity(self, model, z, v, r, given: Batch, key) -> mx.array:
        """v_g (B, ...), without a gradient; v itself where nothing guides."""
        if self.omega == 1 and self.kappa == 0:
            return v
        rest = 1 - self.omega - self.kappa
        led = self.omega * v
        if self.kappa:
            led = led + self.kappa * average(model, z, r, r, key=key, **given)
        if rest:
            led = led + rest * average(model, z, r, r, key=key, **unlabelled(given))
        guided = (r >= self.guided_from) & (r <= self.guided_to) & (given["label"] >= 0)
        return mx.stop_gradient(mx.where(beside(guided, v), led, v))

    def evaluate(self, model, z, tangent, r, t, given: Batch, moving: int, keys) -> tuple[mx.array, mx.array]:
        """u (B, ...) and d/dr u along `tangent` (B, ...), zero and unpaid for in all but the first `moving` rows."""
        us, slopes = [], []
        if moving:
            rows = slice(0, moving)
            rest = {name: value[rows] for name, value in given.items()}

            def at(z: mx.array, r: mx.array) -> mx.array:
                return average(model, z, r, t[rows], key=keys[0], **rest)

            (u,), (slope,) = mx.jvp(at, [z[rows], r[rows]], [tangent[rows], mx.ones_like(r[rows])])
            us.append(u)
            slopes.append(mx.stop_gradient(slope))
        if moving < z.shape[0]:
            rows = slice(moving, None)
            rest = {name: value[rows] for name, value in given.items()}
            us.append(average(model, z[rows], r[rows], t[rows], key=keys[1], **rest))
            slopes.append(mx.zeros_like(z[rows]))
        return mx.concatenate(us), mx.concatenate(slopes)

    def average_velocity(self, model, **conditions: mx.array) -> AverageField:
        """u(x, r, t); guided at sampling where guidance is not 1."""

        def field(x: mx.array, r: mx.array, t: mx.array) -> mx.array:
            start, end = (mx.broadcast_to(time, (x.shape[0],)) for time in (r, t))
            return self.guided(lambda given: average(model, x, start, end, **given).astype(x.dtype), conditions)

        return field

    def velocity(self, model, **conditions: mx.array) -> Field:
        """The instantaneous velocity u(x, t, t), for ODE solvers."""
        field = self.average_velocity(model, **conditions)
        return lambda x, t: field(x, t, t)
