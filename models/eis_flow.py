"""A conditional flow over circuits: the other way to a joint distribution of the five parameters, for comparison.

The same encoder as models.eis_predictor, then a velocity on five numbers instead of a choice among cells. A place u on
the grid is carried to the state Phi^-1((u + 1/2) / 12), Phi the normal distribution function: the prior, uniform in u,
is then the flow's own start, N(0, I), and no density is spent outside the grid.
"""

import math

import mlx.core as mx
import mlx.nn as nn

from domains.eis import POINTS
from models.eis_encoder import SpectrumEncoder, log_residual, residual_head
from models.elementary import layer_norm, silu
from models.layers import TimeEmbedding, check_sample, check_times
from models.linear import Linear
from models.transformer import NONLINEARITIES, Nonlinearity

EDGE = 1e-6  # of the unit range, kept between a state and infinity
OCTAVES = 3  # of waves that tell states apart, the longest of length 8
TIMES = 16  # sines and cosines per time


class EISFlow(nn.Module):
    """Velocities of the parameters' states (B, 5) given a spectrum; see `encode`, `velocity` and `to_state`.

    shape, hidden, width, slots, depth: of models.eis_encoder.SpectrumEncoder; nonlinearity: its and the blocks';
    flow_width, flow_depth: of the velocity's residual blocks.
    """

    def __init__(self, shape: tuple | list = (50, 4), hidden: int = 512, width: int = 128, slots: int = 32,
                 depth: int = 3, flow_width: int = 256, flow_depth: int = 4,
                 nonlinearity: Nonlinearity = "gelu_tanh"):  # fmt: skip
        super().__init__()
        self.shape = tuple(shape)
        self.encoder = SpectrumEncoder(shape, hidden, width, slots, depth, nonlinearity)
        self.enter = Linear(5 * (2 + 2 * OCTAVES), flow_width)
        self.given = Linear(hidden, flow_width)
        self.time = TimeEmbedding(TIMES, flow_width)
        self.blocks = [Block(flow_width, nonlinearity) for _ in range(flow_depth)]
        self.leave = zeroed(Linear(flow_width, 5))
        self.residual = residual_head(hidden)

    def encode(self, x: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
        """Spectra (B, P, 4), places (B, 5) and their mask (B, 5) -> what `velocity` takes, (B, hidden)."""
        return self.encoder(x, known, known_mask)

    def velocity(
        self, x: mx.array, times: mx.array, context: mx.array, known_mask: mx.array, key: mx.array | None = None
    ) -> mx.array:
        """dx/dt of states x (B, 5) or (B, S, 5) at times (B, 2), 0 where known_mask (B, 5) is 1.

        context (B, hidden): what `encode` gives. Many states of one spectrum share what depends on it and time alone.
        """
        check_sample(self, x, (*x.shape[1:-1], 5))
        times, dtype = check_times(x, times), self.enter.weight.dtype
        if x.ndim == 3:
            known_mask = mx.broadcast_to(known_mask[:, None], x.shape)
        octaves = math.pi / 4 * 2.0 ** mx.arange(OCTAVES)
        angle = (x[..., None] * octaves).reshape(*x.shape[:-1], -1)
        state = mx.concatenate([x, known_mask, mx.sin(angle), mx.cos(angle)], axis=-1)
        condition = silu(self.given(context.astype(dtype)) + self.time(times))
        condition = condition[:, None] if x.ndim == 3 else condition
        h = self.enter(state.astype(dtype))
        for block in self.blocks:
            h = block(h, condition)
        return self.leave(layer_norm(h)).astype(mx.float32) * (1 - known_mask)

    def log_residual(self, context: mx.array, places: mx.array) -> mx.array:
        """What the network says of circuits at places (..., 5): see models.eis_encoder.log_residual."""
        return log_residual(self.residual, self.encoder.activation, context, places)

    @staticmethod
    def to_state(places: mx.array) -> mx.array:
        """States (...) of places (...) on the grid, from -0.5 to 11.5."""
        unit = mx.clip((places + 0.5) / POINTS, EDGE, 1 - EDGE)
        return math.sqrt(2) * mx.erfinv(2 * unit - 1)

    @staticmethod
    def to_places(states: mx.array) -> mx.array:
        """Places (...) on the grid of states (...)."""
        return POINTS * (1 + mx.erf(states / math.sqrt(2))) / 2 - 0.5

    @staticmethod
    def log_volume(states: mx.array) -> mx.array:
        """ln of d state / d place at states (...): a density of states times it is one of places, per cell."""
        return 0.5 * mx.square(states) + 0.5 * math.log(2 * math.pi) - math.log(POINTS)

    def __call__(self, x: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
        """`encode`."""
        return self.encode(x, known, known_mask)


class Block(nn.Module):
    """h + W2 f(W1 n), n a layer norm of h that the condition scales and shifts; at first it adds nothing."""

    def __init__(self, width: int, nonlinearity: Nonlinearity):
        super().__init__()
        self.activation = NONLINEARITIES[nonlinearity]
        self.modulate = zeroed(Linear(width, 2 * width))
        self.wide = Linear(width, 2 * width)
        self.narrow = zeroed(Linear(2 * width, width))

    def __call__(self, h: mx.array, condition: mx.array) -> mx.array:
        """h (..., width) and a condition that broadcasts against it -> (..., width)."""
        scale, shift = mx.split(self.modulate(condition), 2, axis=-1)
        return h + self.narrow(self.activation(self.wide(layer_norm(h) * (1 + scale) + shift)))


def zeroed(layer: Linear) -> Linear:
    """The layer with weights of 0."""
    layer.weight, layer.bias = mx.zeros_like(layer.weight), mx.zeros_like(layer.bias)
    return layer
