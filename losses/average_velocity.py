"""What the objectives share that learn average velocities: the rows of a step, u with its slope in time, sampling.

Noise is at t=0, data at t=1, and the state z_r is at the START of the interval [r, t]:

    z_r = (1 - r) e + r x,  v = x - e                  the straight path and its velocity
    (t - r) u(z_r, r, t) = integral of v from r to t   the average velocity, so z_t = z_r + (t - r) u
    u(z, t, t) = v(z, t)                               the instantaneous velocity, for ODE solvers
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import mlx.core as mx

from losses.conditioning import Conditional, like, masked_mean, row_means, source_points
from losses.pairs import SortedPairs
from losses.paths import beside
from runtime.errors import UsageError
from runtime.op import AverageField, Batch, Context, Field


@dataclass
class Rows:
    """States z and velocities v (B, ...), times r and t (B,), conditions; the first `moving` rows may have r < t.

    key: of the model's dropout, None for none.
    """

    z: mx.array
    v: mx.array
    r: mx.array
    t: mx.array
    given: Batch
    moving: int
    key: mx.array | None = None

    def part(self, start: int, end: int, key: mx.array | None = None) -> "Rows":
        """The rows from `start` to `end`, with a key of their own."""
        rows = slice(start, end)
        moving = max(0, min(self.moving, end) - start)
        given = {name: value[rows] for name, value in self.given.items()}
        return Rows(self.z[rows], self.v[rows], self.r[rows], self.t[rows], given, moving, key)


Call = Callable[[Rows], tuple[mx.array, ...]]


def average(model, z: mx.array, r: mx.array, t: mx.array, **rest) -> mx.array:
    """u(z, r, t) in float32 (or z's float64): the model at states z (B, ...) of times r, ends t, both (B,)."""
    out = like(model(z, times=mx.stack([r, t], axis=1), **rest), z)
    return out if out.dtype == mx.float64 else out.astype(mx.float32)


def average_of(model, rows: Rows) -> mx.array:
    """u at the rows' states, times and conditions, (B, ...)."""
    return average(model, rows.z, rows.r, rows.t, key=rows.key, **rows.given)


def evaluate(call: Call, rows: Rows, tangent: mx.array) -> tuple[tuple[mx.array, ...], mx.array]:
    """The outputs of `call`, each (B, ...), and d/dr of the first along dz = `tangent`, dr = 1, dt = 0, no gradient.

    tangent: (moving, ...) or longer. The slope is zero, and unpaid for, in all but the first `moving` rows.
    """
    moving, count = rows.moving, rows.z.shape[0]
    keys = [None, None] if rows.key is None else mx.random.split(rows.key)
    # These rows first: a compiled activation (nn.silu) that ran in a jvp can't be differentiated when called again.
    still = list(call(rows.part(moving, count, keys[1]))) if moving < count else []
    if not moving:
        return tuple(still), mx.zeros_like(still[0])
    ahead = rows.part(0, moving, keys[0])

    def at(z: mx.array, r: mx.array) -> tuple[mx.array, ...]:
        return call(replace(ahead, z=z, r=r))

    outputs, slopes = mx.jvp(at, [ahead.z, ahead.r], [tangent[:moving], mx.ones_like(ahead.r)])
    slope = mx.stop_gradient(slopes[0])
    if moving == count:
        return tuple(outputs), slope
    slope = mx.concatenate([slope, mx.zeros_like(still[0])])
    return tuple(mx.concatenate([a, b]) for a, b in zip(outputs, still, strict=True)), slope


def row_sums(x: mx.array) -> mx.array:
    """The sum over everything but the rows, (B, ...) -> (B,)."""
    return x.reshape(x.shape[0], -1).sum(axis=1)


def adaptive_weight(squares: mx.array, power: float, eps: float) -> mx.array:
    """1 / (squares + eps)^power, no gradient (arXiv 2505.13447, eq. 22); power 1 makes rows count alike, 0 is MSE."""
    return mx.stop_gradient(1 / (squares + eps) ** power)


class AverageVelocity(Conditional):
    """An objective that trains u(z, r, t). Subclasses give `errors`; pairs of times come from `pairs`.

    pairs: sampler of (r, t), see losses.pairs (None: two uniform draws). moving_share: share of rows with r < t; the
    others train the instantaneous velocity. The rest as in Conditional.
    """

    extras = ("velocity_mse",)
    metrics = ("velocity_mse",)

    def __init__(
        self,
        pairs: Callable | None = None,
        moving_share: float = 0.25,
        conditions: tuple | list = (),
        label_dropout: float = 0.0,
        guidance: float = 1.0,
    ):
        super().__init__(conditions, label_dropout, guidance)
        if not 0 <= moving_share <= 1:
            raise UsageError(f"{type(self).__name__}: the share of rows with r < t must lie in [0, 1], "
                             f"got {moving_share}.")  # fmt: skip
        self.pairs, self.moving_share = pairs or SortedPairs(), moving_share

    def __call__(self, model, batch: Batch, ctx: Context) -> tuple[mx.array, Batch]:
        """Loss in float32 and per row "velocity_mse" (B,), the unweighted mean square of what `errors` says is off v.

        Reads "x" (B, ...), "x0" where there is one (else normal noise), "mask" where there is one, and the conditions.
        """
        losses, off = self.errors(model, self.rows(batch, ctx), ctx)
        return masked_mean(losses, batch), {"velocity_mse": mx.stop_gradient(row_means(mx.square(off)))}

    def rows(self, batch: Batch, ctx: Context) -> Rows:
        """Draws the noise, the times and the dropped labels of a step."""
        noise_key, time_key, dropout_key, label_key = mx.random.split(ctx.key, 4)
        x, training = batch["x"], ctx.mode == "train"
        e = source_points(batch, noise_key)
        moving = round(self.moving_share * x.shape[0])
        times = self.pairs(x.shape[0], moving, time_key)
        r, t = times[:, 0], times[:, 1]
        z = (1 - beside(r, x)) * e + beside(r, x) * x
        given = self.given(batch, training, label_key)
        return Rows(z, x - e, r, t, given, moving, dropout_key if training else None)

    def errors(self, model, rows: Rows, ctx: Context) -> tuple[mx.array, mx.array]:
        """The loss of every row (B,), and how far the velocity that u stands for is off v, (B, ...)."""
        raise NotImplementedError

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
