"""SuperLoss: a curriculum by the loss itself."""

from collections.abc import Sequence

import mlx.core as mx

from ops.loss_op import LossOp
from ops.losses.lambert import lambertw
from runtime.errors import UsageError
from runtime.op import Batch, Context, masked_mean

BRANCH = -2 * 0.36787944  # -2/e
DECAY = 0.1


class SuperLoss(LossOp):
    """Weighs the rows of `loss` by how far they lie under a threshold (Castells et al., NeurIPS 2020, eq. 2 and 6).

    (L - tau) s + lambda (ln s)^2 with ln s = -W(max(-2/e, b) / 2), b = (L - tau) / lambda, the s that makes it least;
    so its slope in L is s itself. threshold: tau, a number (ln of the number of classes, say) or "exp": a moving
    average (.1) of the mean training loss, which each training step advances once; evaluation uses it as it is, and its
    own batch's mean before the first step. regularization: lambda. output_confidence: a key for s (B,).
    """

    def __init__(
        self,
        loss: LossOp,
        threshold: float | str = "exp",
        regularization: float = 1.0,
        average_loss: bool = True,
        output_confidence: str | None = None,
    ):
        if len(loss.outputs) != 1:
            raise UsageError(f"SuperLoss needs a loss with one output, got {', '.join(loss.outputs) or 'none'}.")
        if regularization <= 0:
            raise UsageError(f"SuperLoss: regularization must be positive, got {regularization}.")
        if isinstance(threshold, str) and threshold != "exp":
            raise UsageError(f'SuperLoss: threshold must be a number or "exp", got {threshold!r}.')
        outputs: str | Sequence[str] = loss.outputs[0]
        if output_confidence:
            outputs = (loss.outputs[0], output_confidence)
        super().__init__(loss.inputs, outputs, loss.mode, loss.ds_id, average_loss)
        self.losses, self.models = loss.outputs, loss.models
        self.loss, self.threshold, self.regularization = loss, threshold, regularization
        self.in_list = loss.in_list
        if threshold == "exp":
            self.state = {"tau": mx.array(0.0), "seen": mx.array(False)}
        if loss.state:
            self.state["loss"] = loss.state

    def __call__(self, data: Batch, ctx: Context) -> Batch:
        """The loss, and the confidences where they are asked for."""
        picked = [data[name] for name in self.inputs]
        rows = self.loss.per_sample(picked if self.in_list else picked[0], ctx).astype(mx.float32)
        mask = data.get("mask")
        over = rows - self.tau(masked_mean(rows, mask), ctx)
        # s minimises the whole, so its own dependence on L adds nothing to the slope: lambertw stops that gradient
        log_s = -lambertw(0.5 * mx.maximum(over / self.regularization, BRANCH))
        values = over * mx.exp(log_s) + self.regularization * log_s.square()
        loss = self.reduce(values, mask) if self.average_loss else values
        return self.named([loss, mx.exp(log_s)] if self.out_list else loss)

    def tau(self, mean: mx.array, ctx: Context) -> mx.array:
        """The threshold, 0-d; in training the average moves first."""
        if isinstance(self.threshold, int | float):
            return mx.array(float(self.threshold))
        mean, tau = mx.stop_gradient(mean), self.state["tau"]
        if ctx.mode != "train":
            return mx.where(self.state["seen"], tau, mean)
        tau = mx.where(self.state["seen"], tau + DECAY * (mean - tau), mean)
        self.state["tau"], self.state["seen"] = tau, mx.array(True)
        return tau
