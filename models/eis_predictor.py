"""A network that reads an impedance spectrum of any length and says how likely circuits are.

The joint distribution of the five parameters is autoregressive: for each, a choice among the grid's 12 cells, then the
place in the cell by a mixture of truncated logistic densities, both given the spectrum, what is known and the places
of the parameters before. So it is no product of marginals, and its density is exact.
"""

import math

import mlx.core as mx
import mlx.nn as nn

from domains.eis import POINTS
from models.layers import check_sample
from models.linear import Linear
from models.transformer import EncoderBlock

WAVES = 6  # of a logarithmic frequency, in octaves of a wave over 12 decades
OFFSETS = 5  # octaves that tell a place inside a cell
SMALLEST = -6.0  # ln of the narrowest component, in cells


class EISPredictor(nn.Module):
    """Spectra (B, P, 4) and known parameters to distributions over circuits; see `encode`, `cells` and `inside`.

    shape: of a spectrum, [most points, 4]: log10 of the frequency (Hz), Re Z, Im Z (ohm), 1 where there is a point.
    hidden: of what the heads take; width, depth, heads: of the transformer over the points; mixture: components.
    """

    def __init__(self, shape: tuple | list = (50, 4), hidden: int = 512, width: int = 128, depth: int = 4,
                 heads: int = 4, mixture: int = 6):  # fmt: skip
        super().__init__()
        self.shape, self.mixture = tuple(shape), mixture
        self.enter = Linear(5 + 2 * WAVES, width)
        self.summary = Linear(3 + 2 * self.place_size() * 5, width)
        self.blocks = [EncoderBlock(width, heads, 4 * width, 0.0, "gelu_tanh", True) for _ in range(depth)]
        self.norm = nn.LayerNorm(width)
        self.trunk = [Linear(2 * width, hidden), Linear(hidden, hidden)]
        self.before = [Linear(i * self.place_size(), hidden) for i in range(1, 5)]
        self.choose = [Linear(hidden, hidden // 2) for _ in range(5)]
        self.cell = [Linear(hidden // 2, POINTS) for _ in range(5)]
        self.refine = [Linear(hidden // 2 + POINTS, hidden // 4) for _ in range(5)]
        self.place = [Linear(hidden // 4, 3 * mixture) for _ in range(5)]
        self.residual = [Linear(hidden + 5 * self.place_size(), hidden // 2), Linear(hidden // 2, 1)]

    @staticmethod
    def place_size() -> int:
        """How many numbers `embed` makes of a place."""
        return POINTS + 1 + 2 * OFFSETS

    @staticmethod
    def embed(places: mx.array) -> mx.array:
        """Places (...) on the grid as numbers (..., 23): which cell, the place itself, waves of its offset."""
        cell = mx.clip(mx.round(places), 0, POINTS - 1)
        one_hot = (cell[..., None] == mx.arange(POINTS)).astype(mx.float32)
        offset = (places - cell)[..., None] * (math.pi * 2.0 ** mx.arange(OFFSETS))
        return mx.concatenate([one_hot, places[..., None] / POINTS - 0.5, mx.sin(offset), mx.cos(offset)], axis=-1)

    def encode(self, x: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
        """Spectra (B, P, 4), places (B, 5) and their mask (B, 5) -> what the heads take, (B, hidden).

        A row without points is the prior, given what is known.
        """
        check_sample(self, x, (x.shape[1], 4))
        x = x.astype(mx.float32)  # amplitudes over nine decades
        present = x[..., 3:]
        count = mx.maximum(present.sum(axis=1), 1)
        real, imaginary = x[..., 1:2], x[..., 2:3]
        size = mx.sqrt(mx.maximum(real**2 + imaginary**2, 1e-20))
        scale = (mx.log(size) * present).sum(axis=1) / count  # mean of ln |Z|, (B, 1)
        relative = mx.exp(-scale)[:, None]
        angle = x[..., :1] * (math.pi / 12 * 2.0 ** mx.arange(WAVES))
        points = [mx.log(size) - scale[:, None], real / size, imaginary / size,
                  mx.clip(real * relative, -10, 10), mx.clip(imaginary * relative, -10, 10),
                  mx.sin(angle), mx.cos(angle)]  # fmt: skip
        points = mx.concatenate(points, axis=-1) * present
        given = mx.concatenate([self.embed(known) * known_mask[..., None], mx.broadcast_to(
            known_mask[..., None], (*known_mask.shape, self.place_size()))], axis=-1)  # fmt: skip
        whole = mx.concatenate([scale / 3 - 2, mx.log(count) / 3 - 1, (present.sum(axis=1) > 0).astype(mx.float32),
                                given.reshape(len(x), -1)], axis=-1)  # fmt: skip
        dtype = self.enter.weight.dtype
        tokens = mx.concatenate([self.summary(whole.astype(dtype))[:, None], self.enter(points.astype(dtype))], axis=1)
        seen = mx.concatenate([mx.ones((len(x), 1), mx.bool_), present[..., 0] > 0], axis=1)
        for block in self.blocks:
            tokens, _ = block(tokens, mask=seen[:, None, None])
        tokens = self.norm(tokens)
        mean = (tokens[:, 1:] * present.astype(dtype)).sum(axis=1) / count.astype(dtype)
        h = mx.concatenate([tokens[:, 0], mean], axis=-1)
        for layer in self.trunk:
            h = nn.gelu_approx(layer(h))
        return h

    def cells(self, context: mx.array, places: mx.array, parameter: int) -> tuple[mx.array, mx.array]:
        """Logits (..., 12) of a parameter's cell given the places (..., 5) before it, and what `inside` takes."""
        earlier = self.embed(places[..., :parameter])
        h = context
        if parameter:
            h = h + self.before[parameter - 1](earlier.reshape(*earlier.shape[:-2], -1).astype(context.dtype))
        h = nn.gelu_approx(self.choose[parameter](nn.gelu_approx(h)))
        return self.cell[parameter](h).astype(mx.float32), h

    def inside(self, h: mx.array, cell: mx.array, parameter: int) -> tuple[mx.array, mx.array, mx.array]:
        """The mixture inside a cell (...,) int: ln weights, centres and ln widths (..., mixture), in cells."""
        one_hot = (cell[..., None] == mx.arange(POINTS)).astype(h.dtype)
        out = nn.gelu_approx(self.refine[parameter](mx.concatenate([h, one_hot], axis=-1)))
        weight, centre, width = mx.split(self.place[parameter](out).astype(mx.float32), 3, axis=-1)
        weight = weight - mx.logsumexp(weight, axis=-1, keepdims=True)
        return weight, 0.6 * mx.tanh(centre), mx.maximum(width - 1, SMALLEST)

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
            density.append(truncated(offset, *self.inside(h, cell, i)) if within else mx.zeros_like(offset))
        return mx.stack(chosen, axis=-1), mx.stack(density, axis=-1)

    def log_residual(self, context: mx.array, places: mx.array) -> mx.array:
        """log10 of the mean |dZ| over the mean |Z| between the spectrum and circuits at places (..., 5), (...)."""
        flat = self.embed(places).reshape(*places.shape[:-1], -1).astype(context.dtype)
        h = nn.gelu_approx(self.residual[0](mx.concatenate([context, flat], axis=-1)))
        return self.residual[1](h)[..., 0].astype(mx.float32)

    def __call__(self, x: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
        """`encode`."""
        return self.encode(x, known, known_mask)


def truncated(offset: mx.array, weight: mx.array, centre: mx.array, width: mx.array) -> mx.array:
    """ln of a mixture of logistic densities cut to [-.5, .5], at offsets (...); the parts are (..., mixture)."""
    scale = mx.exp(width)
    z = (offset[..., None] - centre) / scale
    log_pdf = -mx.abs(z) - 2 * mx.log1p(mx.exp(-mx.abs(z))) - width
    low, high = (-0.5 - centre) / scale, (0.5 - centre) / scale
    inside = mx.log(mx.maximum(mx.sigmoid(high) - mx.sigmoid(low), 1e-30))
    return mx.logsumexp(weight + log_pdf - inside, axis=-1)
