"""What an impedance spectrum of any length says, as one vector: the part that every EIS network has in common."""

import math
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from domains.eis import POINTS
from models.layers import check_sample
from models.linear import Linear
from models.transformer import NONLINEARITIES, Nonlinearity
from runtime.host import constant, namespace

WAVES = 6  # of a logarithmic frequency, in octaves of a wave over 12 decades
FINE = 6  # octaves that tell a logarithm of |Z| apart where a matrix product rounds it (tf32, bf16)
TURNS = 4  # the same for the angle
OFFSETS = 5  # octaves that tell a place inside a cell
CELLS = constant([float(i) for i in range(POINTS)])  # made once: on a CPU each operation takes 10 us
OCTAVES = constant([2.0**i for i in range(max(FINE, TURNS + 1))])
FREQUENCY_WAVES = constant([math.pi / 12 * 2.0**i for i in range(WAVES)])
OFFSET_WAVES = constant([math.pi * 2.0**i for i in range(OFFSETS)])
PLACE = POINTS + 1 + 2 * OFFSETS  # how many numbers `embed` makes of a place


def embed(places: mx.array) -> mx.array:
    """Places (...) on the grid as numbers (..., PLACE): which cell, the place itself, waves of its offset."""
    xp = namespace(places)
    cell = xp.clip(xp.round(places), 0, POINTS - 1)
    one_hot = (cell[..., None] == CELLS[xp]).astype(xp.float32)
    offset = (places - cell)[..., None] * OFFSET_WAVES[xp]
    return xp.concatenate([one_hot, places[..., None] / POINTS - 0.5, xp.sin(offset), xp.cos(offset)], axis=-1)


def residual_head(hidden: int) -> list[Linear]:
    """The layers of `log_residual`."""
    return [Linear(hidden + 5 * PLACE, hidden // 2), Linear(hidden // 2, 1)]


def log_residual(layers: list[Linear], activation: Callable, context: mx.array, places: mx.array) -> mx.array:
    """log10 of the mean |dZ| over the mean |Z| between the spectrum and circuits at places (..., 5), (...).

    context (..., hidden): what an encoder gives.
    """
    xp = namespace(places)
    flat = embed(places).reshape(*places.shape[:-1], -1).astype(context.dtype)
    h = activation(layers[0](xp.concatenate([context, flat], axis=-1)))
    return layers[1](h)[..., 0].astype(xp.float32)


def waves(x: mx.array, octaves: mx.array) -> list[mx.array]:
    """Sines and cosines of x (..., 1) times the octaves, (..., count) each."""
    xp, angle = namespace(x), x * octaves
    return [xp.sin(angle), xp.cos(angle)]


class SpectrumEncoder(nn.Module):
    """Spectra (B, P, 4) and known parameters -> (B, hidden).

    Each point goes through two layers of its own; `slots` weighted means over the points, whose weights depend on the
    points too, make a row of fixed length out of any number of them; residual layers follow. So a spectrum costs as
    much as its points do, and no pairs of them.

    shape: of a spectrum, [most points, 4]: log10 of the frequency (Hz), Re Z, Im Z (ohm), 1 where there is a point.
    width: of a point; depth: residual blocks of `hidden`. nonlinearity: relu, gelu or gelu_tanh; on a
    CPU, uncompiled, MLX takes 22 ns for an exponential, which is most of a prediction with either GELU.
    """

    def __init__(self, shape: tuple | list = (50, 4), hidden: int = 512, width: int = 128, slots: int = 32,
                 depth: int = 3, nonlinearity: Nonlinearity = "gelu_tanh"):  # fmt: skip
        super().__init__()
        self.shape, self.activation = tuple(shape), NONLINEARITIES[nonlinearity]
        self.points = [Linear(5 + 2 * (WAVES + FINE + TURNS), width), Linear(width, width)]
        self.score = Linear(width, slots)
        self.value = Linear(width, width // 4)
        self.summary = Linear(3 + 5 * (PLACE + 1), hidden)
        self.enter = Linear(slots * (width // 4), hidden)
        self.norms = [nn.LayerNorm(hidden) for _ in range(depth)]
        self.blocks = [[Linear(hidden, hidden), Linear(hidden, hidden)] for _ in range(depth)]

    def features(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """Numbers of each point (B, P, 37) in float32, and the mean of ln |Z| (B, 1)."""
        xp, present = namespace(x), x[..., 3:]
        real, imaginary = x[..., 1:2], x[..., 2:3]
        size = xp.sqrt(xp.maximum(real**2 + imaginary**2, 1e-20))
        scale = (xp.log(size) * present).sum(axis=1) / xp.maximum(present.sum(axis=1), 1)
        level = xp.log(size) - scale[:, None]
        relative = xp.exp(-scale)[:, None]
        found = [level, real / size, imaginary / size,
                 xp.clip(real * relative, -10, 10), xp.clip(imaginary * relative, -10, 10),
                 *waves(x[..., :1], FREQUENCY_WAVES[xp]), *waves(level, OCTAVES[xp][:FINE]),
                 *waves(xp.arctan2(imaginary, real), OCTAVES[xp][1 : TURNS + 1])]  # fmt: skip
        return xp.concatenate(found, axis=-1) * present, scale

    def __call__(self, x: mx.array, known: mx.array, known_mask: mx.array) -> mx.array:
        """x (B, P, 4), places known (B, 5) and their mask (B, 5) -> (B, hidden).

        A row without points is the prior, given what is known.
        """
        check_sample(self, x, (x.shape[1], 4))
        xp = namespace(x)
        x = x.astype(xp.float32)  # amplitudes over nine decades
        present = x[..., 3:]
        count = present.sum(axis=1)
        points, scale = self.features(x)
        given = xp.concatenate([embed(known) * known_mask[..., None], known_mask[..., None]], axis=-1)
        whole = xp.concatenate([scale / 3 - 2, xp.log(xp.maximum(count, 1)) / 3 - 1, (count > 0).astype(xp.float32),
                                given.reshape(len(x), -1)], axis=-1)  # fmt: skip
        dtype = self.enter.weight.dtype
        p = points.astype(dtype)
        for layer in self.points:
            p = self.activation(layer(p))
        score = xp.where(present > 0, self.score(p), -1e9)
        share = xp.softmax(score, axis=1, precise=True) * present.astype(dtype)
        pooled = share.swapaxes(1, 2) @ self.value(p)
        h = self.enter(pooled.reshape(len(x), -1)) + self.summary(whole.astype(dtype))
        for norm, (first, second) in zip(self.norms, self.blocks, strict=True):
            h = h + second(self.activation(first(norm(h))))
        return self.activation(h)
