"""A flow over circuits behind the interface of models.eis_predictor, so that predictors take either."""

from functools import partial

import mlx.core as mx

from losses.eis_flow import CircuitFlow, solved
from models.eis_flow import EISFlow
from runtime.errors import UsageError
from solvers.base_solver import Solver
from solvers.heun import Heun
from solvers.likelihood import carried, log_likelihood
from solvers.rk4 import RK4

STEPS = 4  # of Heun's method for draws: their density is that of these steps, whatever the flow's is
EXACT = RK4(24, grid="cosine")  # of the flow's own density


class FlowPredictor:
    """Contexts, draws with their density and the residual's prediction of a flow.

    The density of draws is that of the solver's own map, so that importance weights are right with few steps. What the
    network knows to be given is part of the context; the mask of `sample` must be the same.
    """

    def __init__(self, model: EISFlow, solver: Solver | None = None):
        self.model, self.shape, self.solver = model, model.shape, solver or Heun(STEPS)
        self.objective = CircuitFlow()

    def encode(self, x: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
        """The model's: spectra (B, P, 4), places (B, 5) and their mask (B, 5) -> contexts (B, hidden)."""
        return self.model.encode(x, known, known_mask)

    def sample(self, context: mx.array, known: mx.array, known_mask: mx.array, count: int,
               key: mx.array) -> tuple[mx.array, mx.array]:  # fmt: skip
        """Places (B, count, 5) drawn given contexts (B, hidden), and ln of their density (B, count) in nats.

        Parameters known (B, 5) where the mask (B, 5) is 1 stay as they are and count nothing in the density.
        """
        noise = mx.random.normal((len(context), count, 5), key=key)
        return self.objective.carried(self.model, context, known, known_mask, noise,
                                      partial(carried, solver=self.solver))  # fmt: skip

    def greedy(self, context: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
        """One circuit for each context, places (B, 5): what the likeliest noise, 0, is carried to."""
        still = mx.zeros((len(context), 1, 5))
        places, _ = self.objective.carried(self.model, context, known, known_mask, still, solved(self.solver))
        return places[:, 0]

    def log_density(self, context: mx.array, places: mx.array, within: bool = True) -> tuple[mx.array, mx.array]:
        """ln of the flow's density at places (B, 5), nothing being known, as the heads give theirs: (B, 1) twice.

        A flow has no parts for cell and place in it: the first is 0. Raises UsageError for within=False, a grid's.
        """
        if not within:
            raise UsageError("a flow has a density of places, no probabilities of grid points; needed: heads.")
        total = self.objective.density_at(self.model, context, places, mx.zeros(places.shape),
                                          partial(log_likelihood, solver=EXACT))  # fmt: skip
        return mx.zeros((len(places), 1)), total[:, None]

    def log_residual(self, context: mx.array, places: mx.array) -> mx.array:
        """The model's: log10 of the mean |dZ| over the mean |Z| of circuits at places (..., 5), (...)."""
        return self.model.log_residual(context, places)
