"""A network that reads an impedance spectrum of any length and says how likely circuits are.

The joint distribution of the five parameters is autoregressive: for each, a choice among the grid's 12 cells, then the
place in the cell by a mixture of truncated logistic densities, both given the spectrum, what is known and the places
of the parameters before. So it is no product of marginals, and its density is exact.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from domains.eis import POINTS
from models.eis_encoder import CELLS, PLACE, SpectrumEncoder, embed, log_residual, residual_head
from models.linear import Linear
from models.transformer import Nonlinearity
from models.truncated_logistic import choose, draw, log_density
from runtime.host import namespace, uniform

SMALLEST = -6.0  # ln of the narrowest component, in cells
TINY = 1e-7  # uniform numbers end so far from 0 and 1
LARGEST = (
    5.0  # of the widest, flat in its cell to 3e-6: where flat is best, training widens it until its density is NaN
)


class EISPredictor(nn.Module):
    """Spectra (B, P, 4) and known parameters to distributions over circuits; see `encode`, `cells` and `inside`.

    shape, hidden, width, slots, depth: of models.eis_encoder.SpectrumEncoder; nonlinearity: its and the heads';
    mixture: components in a cell.
    """

    runs_on_host = True

    def __init__(self, shape: tuple | list = (50, 4), hidden: int = 512, width: int = 128, slots: int = 32,
                 depth: int = 3, mixture: int = 6, nonlinearity: Nonlinearity = "gelu_tanh"):  # fmt: skip
        super().__init__()
        self.shape, self.mixture = tuple(shape), mixture
        self.encoder = SpectrumEncoder(shape, hidden, width, slots, depth, nonlinearity)
        self.activation = self.encoder.activation
        self.before = [Linear(i * PLACE, hidden) for i in range(1, 5)]
        self.choose = [Linear(hidden, hidden // 2) for _ in range(5)]
        self.cell = [Linear(hidden // 2, POINTS) for _ in range(5)]
        self.refine = [Linear(hidden // 2 + POINTS, hidden // 4) for _ in range(5)]
        self.place = [Linear(hidden // 4, 3 * mixture) for _ in range(5)]
        self.residual = residual_head(hidden)

    def encode(self, x: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
        """Spectra (B, P, 4), places (B, 5) and their mask (B, 5) -> what the heads take, (B, hidden)."""
        return self.encoder(x, known, known_mask)

    def cells(self, context: mx.array, places: mx.array, parameter: int) -> tuple[mx.array, mx.array]:
        """Logits (..., 12) of a parameter's cell given the places (..., 5) before it, and what `inside` takes."""
        earlier = embed(places[..., :parameter])
        h = context
        if parameter:
            h = h + self.before[parameter - 1](earlier.reshape(*earlier.shape[:-2], -1).astype(context.dtype))
        h = self.activation(self.choose[parameter](self.activation(h)))
        return self.cell[parameter](h).astype(namespace(h).float32), h

    def inside(self, h: mx.array, cell: mx.array, parameter: int) -> tuple[mx.array, mx.array, mx.array]:
        """The mixture inside a cell (...,) int: ln weights, centres and ln widths (..., mixture), in cells."""
        xp = namespace(h)
        one_hot = (cell[..., None] == CELLS[xp]).astype(h.dtype)
        out = self.activation(self.refine[parameter](xp.concatenate([h, one_hot], axis=-1)))
        weight, centre, width = xp.split(self.place[parameter](out).astype(xp.float32), 3, axis=-1)
        weight = weight - xp.logsumexp(weight, axis=-1, keepdims=True)
        return weight, 0.6 * xp.tanh(centre), xp.clip(width - 1, SMALLEST, LARGEST)

    def log_density(self, context: mx.array, places: mx.array, within: bool = True) -> tuple[mx.array, mx.array]:
        """ln of the probability of each cell and ln of the density in it at places (..., 5), (..., 5) each, nats.

        context (..., hidden). within: False leaves the second at 0 (grids of points).
        """
        chosen, density = [], []
        for i in range(5):
            logits, h = self.cells(context, places, i)
            logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
            cell = mx.clip(mx.round(places[..., i]), 0, POINTS - 1).astype(mx.int32)
            chosen.append(mx.take_along_axis(logits, cell[..., None], axis=-1)[..., 0])
            offset = places[..., i] - cell
            density.append(log_density(offset, *self.inside(h, cell, i)) if within else mx.zeros_like(offset))
        return mx.stack(chosen, axis=-1), mx.stack(density, axis=-1)

    def sample(self, context: mx.array, known: mx.array, known_mask: mx.array, count: int, key: mx.array,
               within: bool = True) -> tuple[mx.array, mx.array]:  # fmt: skip
        """Places (B, count, 5) drawn given contexts (B, hidden), and ln of their density (B, count) in nats.

        Parameters known (B, 5) where the mask (B, 5) is 1 stay as they are and count nothing in the density. within:
        False draws grid points, with their probability.
        """
        xp, rows = namespace(context), (len(context), count)
        chances = uniform(xp, TINY, 1 - TINY, (*rows, 5, 3), key)
        places, log_q = xp.zeros((len(context), 1, 0)), xp.zeros(rows)  # one row for all draws until they differ
        settled: Any = (known_mask > 0).all(axis=0).tolist()  # in every row: there is nothing to draw
        for i in range(5):
            drawn = known[:, None, i]
            if not settled[i]:
                logits, h = self.cells(context[:, None], places, i)
                logits = logits - xp.logsumexp(logits, axis=-1, keepdims=True)
                cell = choose(logits, chances[..., i, :1])
                logits = xp.broadcast_to(logits, (*rows, POINTS))
                found = xp.take_along_axis(logits, cell[..., None], axis=-1)[..., 0]
                place = cell.astype(xp.float32)
                if within:
                    parts = self.inside(xp.broadcast_to(h, (*rows, h.shape[-1])), cell, i)
                    offset = draw(*parts, chances[..., i, 1:])
                    found = found + log_density(offset, *parts)
                    place = place + offset
                given = known_mask[:, None, i] > 0
                log_q = log_q + xp.where(given, 0, found)
                drawn = xp.where(given, drawn, place)
                places = xp.broadcast_to(places, (*rows, i))
            drawn = xp.broadcast_to(drawn, places.shape[:2])
            places = xp.concatenate([places, drawn[..., None]], axis=-1)
        return xp.broadcast_to(places, (*rows, 5)), log_q

    def log_residual(self, context: mx.array, places: mx.array) -> mx.array:
        """What the network says of circuits at places (..., 5): see models.eis_encoder.log_residual."""
        return log_residual(self.residual, self.activation, context, places)

    def __call__(self, x: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
        """`encode`."""
        return self.encode(x, known, known_mask)
