"""The network that completes circuits without seeing a spectrum: what known parameters alone can say.

On the full factorial of a grid they say nothing: each of the 12^m completions of the m missing parameters occurs once
beside the same known ones, so that k different guesses hold the right one in exactly k of 12^m cases, whatever the
weights. It is kept to compare with networks that see a spectrum (models.eis_predictor), whose methods it has.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from domains.eis import CELL, LOWEST, POINTS
from models.layers import check_sample
from models.linear import Linear

FIRST = mx.array(np.log10(LOWEST))
STEP = mx.array(CELL / np.log(10))  # of log10 from one grid point to the next


class FactorialPredictor(nn.Module):
    """[log10 of known parameters, mask] -> hidden -> hidden / 2 -> 128 -> five 12-way heads and one for the residual.

    shape: of a spectrum, [most points, 4], which is looked at by nothing. The heads are independent: the joint
    distribution is the product of its marginals, even inside a cell.
    """

    def __init__(self, shape: tuple | list = (50, 4), hidden: int = 512):
        super().__init__()
        self.shape = tuple(shape)
        self.trunk = [Linear(10, hidden), Linear(hidden, hidden // 2), Linear(hidden // 2, 128)]
        self.cell = [Linear(128, POINTS) for _ in range(5)]
        self.residual = Linear(128, 1)

    def encode(self, x: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
        """Spectra (B, P, 4), places (B, 5) and their mask (B, 5) -> what the heads take, (B, 128)."""
        check_sample(self, x, (x.shape[1], 4))
        values = (FIRST + known * STEP) * known_mask
        h = mx.concatenate([values, known_mask], axis=-1).astype(self.residual.weight.dtype)
        for layer in self.trunk:
            h = nn.relu(layer(h))
        return h

    def cells(self, context: mx.array, places: mx.array, parameter: int) -> tuple[mx.array, mx.array]:
        """Logits (..., 12) of a parameter's cell, the same for all places, and the context (..., 128)."""
        logits = self.cell[parameter](context).astype(mx.float32)
        return mx.broadcast_to(logits, (*places.shape[:-1], POINTS)), context

    def log_density(self, context: mx.array, places: mx.array, within: bool = True) -> tuple[mx.array, mx.array]:
        """ln of the probability of each cell at places (..., 5) and of the density in it, which is 1, (..., 5) each."""
        chosen = []
        for i in range(5):
            logits, _ = self.cells(context, places, i)
            cell = mx.clip(mx.round(places[..., i]), 0, POINTS - 1).astype(mx.int32)
            logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
            chosen.append(mx.take_along_axis(logits, cell[..., None], axis=-1)[..., 0])
        found = mx.stack(chosen, axis=-1)
        return found, mx.zeros_like(found)

    def log_residual(self, context: mx.array, places: mx.array) -> mx.array:
        """log10 of the mean |dZ| over the mean |Z|, guessed without the places (..., 5) too, (...)."""
        return mx.broadcast_to(self.residual(context)[..., 0].astype(mx.float32), places.shape[:-1])

    def __call__(self, x: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
        """x (B, P, 4), known and known_mask (B, 5) -> (B, 128), as `encode`."""
        return self.encode(x, known, known_mask)
