"""Flow matching over circuits: which states a spectrum's flow is trained on, and the density that it gives."""

import math
from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn

from domains.eis import POINTS
from losses.flow_matching import FlowMatching
from runtime.errors import UsageError
from runtime.op import Batch, Context, Field


class CircuitFlow(FlowMatching):
    """Flow matching of a model's states of the unknown parameters, given a spectrum and the known ones.

    Known parameters stay where they are: their source point is the data point, so that neither moves, and the error
    there is 0. times: sampler of t (None: uniform). draws: so many pairs of noise and t share one pass of the encoder.
    """

    def __init__(self, times=None, draws: int = 4):
        super().__init__(times=times, conditions=("context", "known_mask"))
        if draws < 1:
            raise UsageError(f"CircuitFlow: draws must be at least 1, got {draws}.")
        self.draws = draws

    def check(self, model: nn.Module) -> None:
        """Raises UsageError for a model without states."""
        if not hasattr(type(model), "to_state"):
            raise UsageError(f"loss=eis_flow trains networks with states of places, such as model=eis_flow; "
                             f"{type(model).__name__} has none.")  # fmt: skip

    def __call__(self, model, batch: Batch, ctx: Context) -> tuple[mx.array, Batch]:
        """Loss in float32 and per row "velocity_mse" (B,), both means over the five parameters."""
        own, key = mx.random.split(ctx.key)
        context = model.encode(batch["x"], batch["known"], batch["known_mask"])
        state, known_mask = model.to_state(batch["target"]), batch["known_mask"]
        rows = {"x": state, "context": context, "known_mask": known_mask}
        rows |= {"mask": batch["mask"]} if "mask" in batch else {}
        rows = {name: mx.repeat(value, self.draws, axis=0) for name, value in rows.items()}
        rows["x0"] = held(mx.random.normal(rows["x"].shape, key=own), rows["x"], rows["known_mask"])
        loss, extra = super().__call__(model.velocity, rows, replace(ctx, key=key))
        return loss, {name: value.reshape(-1, self.draws).mean(axis=1) for name, value in extra.items()}

    def velocity(self, model, **conditions: mx.array) -> Field:
        """The field of states (B, 5); conditions: "context" (B, hidden) by `encode`, "known_mask" (B, 5)."""
        return super().velocity(model.velocity, **conditions)

    def draw(self, model, batch: Batch, noise: mx.array, solver) -> mx.array:
        """Places (B, S, 5) given spectra and known parameters, from standard normal noise (B, S, 5)."""
        rows = {name: batch[name] for name in ("known", "known_mask")}
        rows["context"] = model.encode(batch["x"], batch["known"], batch["known_mask"])
        rows = {name: mx.repeat(value, noise.shape[1], axis=0) for name, value in rows.items()}
        known, mask = rows.pop("known"), rows["known_mask"]
        start = held(noise.reshape(-1, 5), model.to_state(known), mask)
        places = model.to_places(self.sample(model, start, solver, **rows))
        return held(places, known, mask).reshape(noise.shape)

    def log_density(self, model, batch: Batch, likelihood: Callable[[Field, mx.array], mx.array]) -> mx.array:
        """ln p(unknown target | spectrum, known) in nats of cell widths, (B,), as losses.eis.CircuitLikelihood's.

        likelihood(field, states): ln of the flow's density (B,), solvers.likelihood.log_likelihood with a solver.
        """
        mask = batch["known_mask"]
        context = model.encode(batch["x"], batch["known"], mask)
        state = model.to_state(batch["target"])
        total = likelihood(self.velocity(model, context=context, known_mask=mask), state)
        # the known ones stay, so that total holds ln N(state) of each, which is -(log_volume + ln 12): taken out again
        return total + model.log_volume(state).sum(axis=1) + math.log(POINTS) * mask.sum(axis=1)


def held(free: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
    """known where known_mask is 1, else free, (B, 5)."""
    return mx.where(known_mask > 0, known, free)
