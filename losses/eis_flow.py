"""Flow matching over circuits: which states a spectrum's flow is trained on, and the density that it gives."""

import math
from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn

from domains.eis import POINTS
from losses.conditioning import masked_mean
from losses.eis import residual_error
from losses.flow_matching import FlowMatching
from runtime.errors import UsageError
from runtime.op import Batch, Context, Field

Carry = Callable[[Field, mx.array], tuple[mx.array, mx.array]]
Likelihood = Callable[[Field, mx.array], mx.array]


class CircuitFlow(FlowMatching):
    """Flow matching of a model's states of the unknown parameters, given a spectrum and the known ones.

    Known parameters stay where they are: their source point is the data point, so that neither moves, and the error
    there is 0. times: sampler of t (None: uniform). draws: so many pairs of noise and t share one pass of the encoder.
    residual_weight: as in losses.eis.CircuitLikelihood; 0 leaves the residual's head alone.
    """

    extras = ("velocity_mse", "residual_mse")

    def __init__(self, times=None, draws: int = 4, residual_weight: float = 0.5):
        super().__init__(times=times, conditions=("context", "known_mask"))
        if draws < 1 or residual_weight < 0:
            raise UsageError(f"CircuitFlow: draws must be at least 1 and residual_weight at least 0, got {draws} and "
                             f"{residual_weight}.")  # fmt: skip
        self.draws, self.residual_weight = draws, residual_weight
        self.metrics = self.extras  # the loss is more than the velocity's error

    def check(self, model: nn.Module) -> None:
        """Raises UsageError for a model without states."""
        if not hasattr(type(model), "to_state"):
            raise UsageError(f"loss=eis_flow trains networks with states of places, such as model=eis_flow; "
                             f"{type(model).__name__} has none.")  # fmt: skip

    def __call__(self, model, batch: Batch, ctx: Context) -> tuple[mx.array, Batch]:
        """Loss in float32; per row "velocity_mse", a mean over the five parameters, and "residual_mse", (B,) each."""
        own, key = mx.random.split(ctx.key)
        context = model.encode(batch["x"], batch["known"], batch["known_mask"])
        state, known_mask = model.to_state(batch["target"]), batch["known_mask"]
        rows = {"x": state, "context": context, "known_mask": known_mask}
        rows |= {"mask": batch["mask"]} if "mask" in batch else {}
        rows = {name: mx.repeat(value, self.draws, axis=0) for name, value in rows.items()}
        rows["x0"] = held(mx.random.normal(rows["x"].shape, key=own), rows["x"], rows["known_mask"])
        loss, extra = super().__call__(model.velocity, rows, replace(ctx, key=key))
        found = {name: value.reshape(-1, self.draws).mean(axis=1) for name, value in extra.items()}
        error = mx.zeros(len(context))
        if self.residual_weight:
            error = residual_error(model, context.astype(mx.float32), batch)
            loss = loss + self.residual_weight * masked_mean(error, batch)
        return loss, found | {"residual_mse": mx.stop_gradient(error)}

    def velocity(self, model, **conditions: mx.array) -> Field:
        """The field of states (B, 5) or (B, S, 5), given "context" (B, hidden) by `encode` and "known_mask" (B, 5)."""
        return super().velocity(model.velocity, **conditions)

    def draw(self, model, batch: Batch, noise: mx.array, solver) -> mx.array:
        """Places (B, S, 5) given spectra and known parameters, from standard normal noise (B, S, 5)."""
        context = model.encode(batch["x"], batch["known"], batch["known_mask"])
        places, _ = self.carried(model, context, batch["known"], batch["known_mask"], noise, solved(solver))
        return places

    def carried(
        self, model, context: mx.array, known: mx.array, known_mask: mx.array, noise: mx.array, carry: Carry
    ) -> tuple[mx.array, mx.array]:
        """Places (B, S, 5) from standard normal noise (B, S, 5), and ln of their density (B, S), nats of cell widths.

        context (B, hidden): by `encode`; known (B, 5) places where known_mask (B, 5) is 1, which stay and count
        nothing. carry(field, states): the states at t=1 and ln |det| of their Jacobian, solvers.likelihood.carried
        with a solver; where that is 0 the second answer says nothing.
        """
        known, mask = known[:, None], known_mask[:, None]
        start = held(noise, model.to_state(known), mask)
        end, volume = carry(self.velocity(model, context=context, known_mask=known_mask), start)
        own = -0.5 * mx.square(start) - 0.5 * math.log(2 * math.pi) + model.log_volume(end)
        log_q = ((1 - mask) * own).sum(axis=-1) - volume
        return held(model.to_places(end), known, mask), log_q

    def log_density(self, model, batch: Batch, likelihood: Likelihood) -> mx.array:
        """ln p(unknown target | spectrum, known) in nats of cell widths, (B,), as losses.eis.CircuitLikelihood's.

        likelihood(field, states): ln of the flow's density (B,), solvers.likelihood.log_likelihood with a solver.
        """
        context = model.encode(batch["x"], batch["known"], batch["known_mask"])
        return self.density_at(model, context, batch["target"], batch["known_mask"], likelihood)

    def density_at(
        self, model, context: mx.array, places: mx.array, mask: mx.array, likelihood: Likelihood
    ) -> mx.array:
        """`log_density` (B,) of places (B, 5), known where mask (B, 5) is 1, given what `encode` gave, (B, hidden)."""
        state = model.to_state(places)
        total = likelihood(self.velocity(model, context=context, known_mask=mask), state)
        # the known ones stay, so that total holds ln N(state) of each, which is -(log_volume + ln 12): taken out again
        return total + model.log_volume(state).sum(axis=1) + math.log(POINTS) * mask.sum(axis=1)


def solved(solver) -> Carry:
    """A solver's states alone, for draws whose density isn't asked for."""
    return lambda field, start: (solver.solve(field, start), mx.zeros(start.shape[:-1]))


def held(free: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
    """known where known_mask is 1, else free, (B, 5)."""
    return mx.where(known_mask > 0, known, free)
