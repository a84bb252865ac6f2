"""Likelihood of circuits under a predictor, and how far it says that they are from the spectrum."""

import mlx.core as mx
import mlx.nn as nn

from losses.conditioning import masked_mean
from runtime.errors import UsageError
from runtime.op import Batch, Context, Objective


class CircuitLikelihood(Objective):
    """-ln p(unknown parameters | spectrum, known ones) in nats, and half the squared error of the residual's log10.

    refine: also the place in the cell, for circuits off the grid (a density: nats of cell widths, below 0 where it is
    narrower than a cell). residual_weight: of the second part; `residual`, in the batch beside places `candidate`
    (B, 5), is what it should say of them.
    """

    extras = metrics = ("nll", "cell_nll", "residual_mse")

    def __init__(self, refine: bool = True, residual_weight: float = 0.5):
        if residual_weight < 0:
            raise UsageError(f"CircuitLikelihood: residual_weight must be at least 0, got {residual_weight}.")
        self.refine, self.residual_weight = refine, residual_weight

    def check(self, model: nn.Module) -> None:
        """Raises UsageError for a model that is no predictor."""
        if not hasattr(type(model), "log_density"):
            raise UsageError(f"loss=eis trains networks with log_density(...), such as model=eis_predictor; "
                             f"{type(model).__name__} has none.")  # fmt: skip

    def __call__(self, model, batch: Batch, ctx: Context) -> tuple[mx.array, Batch]:
        """Loss in float32; per row "nll", "cell_nll" (the grid alone) and "residual_mse", (B,) each."""
        # not model(...): a run in lower precision would round the spectrum, 0.4% in bf16
        context = model.encode(batch["x"], batch["known"], batch["known_mask"]).astype(mx.float32)
        chosen, density = model.log_density(context, batch["target"], within=self.refine)
        asked = 1 - batch["known_mask"]
        cell = -(chosen * asked).sum(axis=-1)
        nll = cell - (density * asked).sum(axis=-1)
        error = residual_error(model, context, batch)
        loss = masked_mean(nll + self.residual_weight * error, batch)
        rows = {"nll": nll, "cell_nll": cell, "residual_mse": error}
        return loss, {name: mx.stop_gradient(row) for name, row in rows.items()}


def residual_error(model, context: mx.array, batch: Batch) -> mx.array:
    """The squared error (B,) of what a model says of the batch's candidates; 0 in rows without a spectrum."""
    seen = (batch["x"][..., 3].sum(axis=1) > 0).astype(mx.float32)
    return seen * mx.square(model.log_residual(context, batch["candidate"]) - batch["residual"])
