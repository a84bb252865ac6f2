"""Flow matching: regress a model on the velocity of an interpolant (arXiv 2210.02747, eq. 9; couplings 2302.00482)."""

import mlx.core as mx

from losses.couplings import Coupling, Kind
from losses.paths import CondOT, Path, Prediction, Uniform
from runtime.errors import UsageError
from runtime.op import Batch, Context, Field, Objective


def row_means(x: mx.array) -> mx.array:
    """The mean over everything but the rows, (B, ...) -> (B,) float32."""
    return x.astype(mx.float32).reshape(x.shape[0], -1).mean(axis=1)


class FlowMatching(Objective):
    """Mean squared error between the model's prediction and its target along a path.

    path: an interpolant of losses.paths (None: CondOT). times: sampler of t (None: uniform). prediction: what the model
    gives. coupling, coupling_span: how source and data points are paired, over how many batches. conditions: batch
    keys for the model. label_dropout: share of labels replaced by "no class" in training; guidance: classifier-free
    guidance scale w when sampling, v_none + w (v_label - v_none) (arXiv 2207.12598).
    """

    extras = ("velocity_mse",)

    def __init__(
        self,
        path: Path | None = None,
        times=None,
        prediction: Prediction = "velocity",
        coupling: Kind = "independent",
        coupling_span: int = 1,
        conditions: tuple | list = (),
        label_dropout: float = 0.0,
        guidance: float = 1.0,
    ):
        self.path, self.times = path or CondOT(), times or Uniform()
        self.prediction: Prediction = prediction
        self.coupling: Kind = coupling
        self.coupling_span, self.conditions = coupling_span, tuple(conditions)
        self.label_dropout, self.guidance = label_dropout, guidance
        if (label_dropout or guidance != 1) and "label" not in self.conditions:
            raise UsageError(
                f"FlowMatching: label_dropout={label_dropout} and guidance={guidance} need conditions to hold "
                f"'label', got {list(self.conditions)}."
            )

    def __call__(self, model, batch: Batch, ctx: Context) -> tuple[mx.array, Batch]:
        """Loss in float32 and per row "velocity_mse" (B,), the same error measured on the velocity.

        Reads "x" (B, ...), "x0" where there is one (else normal noise), "mask" where there is one, and the conditions.
        """
        noise_key, time_key, dropout_key, label_key = mx.random.split(ctx.key, 4)
        x1 = batch["x"]
        x0 = batch["x0"] if "x0" in batch else mx.random.normal(x1.shape, key=noise_key)
        t = self.times(x1.shape[0], time_key)
        x_t = self.path.point(x0, x1, t)
        training = ctx.mode == "train"
        given = {name: batch[name] for name in self.conditions}
        if training and self.label_dropout:
            dropped = mx.random.bernoulli(self.label_dropout, given["label"].shape, key=label_key)
            given["label"] = mx.where(dropped, -1, given["label"])
        out = predict(model, x_t, t, key=dropout_key if training else None, **given).astype(mx.float32)
        target = {"velocity": self.path.velocity(x0, x1, t), "x": x1, "eps": x0}[self.prediction]
        errors = row_means(mx.square(out - target))
        if self.prediction == "velocity":
            velocity_mse = errors
        else:
            as_velocity = self.path.convert(out, self.prediction, "velocity", x_t, t)
            velocity_mse = row_means(mx.square(as_velocity - self.path.velocity(x0, x1, t)))
        extra = {"velocity_mse": mx.stop_gradient(velocity_mse)}
        if "mask" not in batch:
            return errors.mean(), extra
        return (errors * batch["mask"]).sum() / mx.maximum(batch["mask"].sum(), 1), extra

    def host_ops(self) -> list:
        """The coupling, unless source and data are paired independently."""
        return [] if self.coupling == "independent" else [Coupling(self.coupling, self.coupling_span)]

    def velocity(self, model, **conditions: mx.array) -> Field:
        """The field of the generative ODE, whatever the model predicts; guided where guidance is not 1."""

        def plain(x: mx.array, t: mx.array, given: Batch) -> mx.array:
            out = predict(model, x, mx.broadcast_to(t, (x.shape[0],)), **given).astype(x.dtype)
            return self.path.convert(out, self.prediction, "velocity", x, t)

        def field(x: mx.array, t: mx.array) -> mx.array:
            if self.guidance == 1 or "label" not in conditions:
                return plain(x, t, conditions)
            none = plain(x, t, {**conditions, "label": mx.full(x.shape[:1], -1)})
            return none + self.guidance * (plain(x, t, conditions) - none)

        return field


def predict(model, x: mx.array, t: mx.array, **rest) -> mx.array:
    """The model at states x (B, ...) and times t (B,); the end of the pair is 1 in training and in sampling alike."""
    return model(x, times=mx.stack([t, mx.ones_like(t)], axis=1), **rest)
