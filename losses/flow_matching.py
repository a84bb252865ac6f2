"""Flow matching: regress a model on the velocity of an interpolant (arXiv 2210.02747, eq. 9; couplings 2302.00482)."""

from collections.abc import Callable

import mlx.core as mx

from losses.conditioning import Conditional, like, masked_mean, row_means, source_points
from losses.couplings import Coupling, Kind
from losses.paths import CondOT, Path, Prediction, Uniform
from runtime.op import Batch, Context, Field


class FlowMatching(Conditional):
    """Mean squared error between the model's prediction and its target along a path.

    path: an interpolant of losses.paths (None: CondOT). times: sampler of t (None: uniform). prediction: what the model
    gives. coupling, coupling_span: how source and data points are paired, over how many batches. The rest as in
    Conditional.
    """

    extras = ("velocity_mse",)

    def __init__(
        self,
        path: Path | None = None,
        times: Callable | None = None,
        prediction: Prediction = "velocity",
        coupling: Kind = "independent",
        coupling_span: int = 1,
        conditions: tuple | list = (),
        label_dropout: float = 0.0,
        guidance: float = 1.0,
    ):
        super().__init__(conditions, label_dropout, guidance)
        self.path, self.times = path or CondOT(), times or Uniform()
        self.prediction: Prediction = prediction
        self.coupling: Kind = coupling
        self.coupling_span = coupling_span
        self.metrics = () if prediction == "velocity" else ("velocity_mse",)  # else it is the loss

    def __call__(self, model, batch: Batch, ctx: Context) -> tuple[mx.array, Batch]:
        """Loss in float32 and per row "velocity_mse" (B,), the same error measured on the velocity.

        Reads "x" (B, ...), "x0" where there is one (else normal noise), "mask" where there is one, and the conditions.
        """
        noise_key, time_key, dropout_key, label_key = mx.random.split(ctx.key, 4)
        x1 = batch["x"]
        x0 = source_points(batch, noise_key)
        t = self.times(x1.shape[0], time_key)
        x_t = self.path.point(x0, x1, t)
        training = ctx.mode == "train"
        given = self.given(batch, training, label_key)
        out = predict(model, x_t, t, key=dropout_key if training else None, **given).astype(mx.float32)
        target = {"velocity": self.path.velocity(x0, x1, t), "x": x1, "eps": x0}[self.prediction]
        errors = row_means(mx.square(out - target))
        if self.prediction == "velocity":
            velocity_mse = errors
        else:
            as_velocity = self.path.convert(out, self.prediction, "velocity", x_t, t)
            velocity_mse = row_means(mx.square(as_velocity - self.path.velocity(x0, x1, t)))
        extra = {"velocity_mse": mx.stop_gradient(velocity_mse)}
        return masked_mean(errors, batch), extra

    def host_ops(self) -> list:
        """The coupling, unless source and data are paired independently."""
        return [] if self.coupling == "independent" else [Coupling(self.coupling, self.coupling_span)]

    def velocity(self, model, **conditions: mx.array) -> Field:
        """The field of the generative ODE, whatever the model predicts; guided where guidance is not 1."""

        def plain(x: mx.array, t: mx.array, given: Batch) -> mx.array:
            out = predict(model, x, mx.broadcast_to(t, (x.shape[0],)), **given).astype(x.dtype)
            return self.path.convert(out, self.prediction, "velocity", x, t)

        def field(x: mx.array, t: mx.array) -> mx.array:
            return self.guided(lambda given: plain(x, t, given), conditions)

        return field


def predict(model, x: mx.array, t: mx.array, **rest) -> mx.array:
    """The model at states x (B, ...) and times t (B,); the end of the pair is 1 in training and in sampling alike."""
    return like(model(x, times=mx.stack([t, mx.ones_like(t)], axis=1), **rest), x)
