"""What a network says of impedance spectra before any likelihood is asked: its input, its likeliest circuits.

The network is one with `encode`, `cells`, `inside` (models.eis_predictor); it comes as an argument.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from domains.eis import POINTS, place_of
from domains.eis_spectrum import Spectrum


def as_input(
    spectra: Sequence[Spectrum | None], known: Sequence[Mapping[int, float]], most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The network's x (B, most, 4), known places (B, 5) and their mask (B, 5), all float32.

    spectra: None is a row without points. known: {parameter: value in ohm or farad} for each. A spectrum of more than
    `most` points is thinned to those nearest to equal distances in ln f.
    """
    x = np.zeros((len(spectra), most, 4), np.float32)
    places, mask = np.zeros((2, len(spectra), 5), np.float32)
    for row, (spectrum, given) in enumerate(zip(spectra, known, strict=True)):
        for parameter, value in given.items():
            places[row, parameter] = place_of(parameter, value)
            mask[row, parameter] = 1
        if spectrum is None:
            continue
        kept = thinned(spectrum.frequencies, most)
        z = spectrum.z[kept]
        x[row, : len(z)] = np.stack([np.log10(spectrum.frequencies[kept]), z.real, z.imag, np.ones(len(z))], axis=1)
    return x, places, mask


def thinned(frequencies: np.ndarray, most: int) -> np.ndarray:
    """Indices of at most `most` of the ascending frequencies (F,), both ends and about equally far apart in ln f."""
    if len(frequencies) <= most:
        return np.arange(len(frequencies))
    place = np.log(frequencies)
    middle = (place[1:] + place[:-1]) / 2
    wanted = np.linspace(place[0], place[-1], most)
    nearest = np.searchsorted(middle, wanted)
    # no index twice: push up those that collide, then down from the upper end
    nearest = np.maximum.accumulate(nearest - np.arange(most)) + np.arange(most)
    return np.minimum(nearest, len(frequencies) - most + np.arange(most))


def beam(
    model: Any, context: mx.array, known: mx.array, known_mask: mx.array, width: int, within: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest circuits, best first: places (B, K, 5) and ln of their cells' joint probability (B, K), K <= width.

    context (B, hidden), known places (B, 5) and mask (B, 5). Parameter by parameter the `width` best beginnings are
    kept, so with width 12^5 nothing is lost. within: the place in a cell is the mean of the mixture's centres and the
    probability, which later parameters' cells depend on it by, that at this place; else grid points, exactly.
    width 1 is the greedy guess.
    """
    rows = len(context)
    places, log_p = mx.zeros((rows, 1, 0)), mx.zeros((rows, 1))
    for i in range(5):
        logits, h = model.cells(context[:, None], places, i)
        logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        only = mx.where(mx.arange(POINTS) == 0, 0.0, -mx.inf)  # a known parameter goes on in one way
        given = known_mask[:, None, i] > 0
        total = log_p[..., None] + mx.where(given[..., None], only, logits)
        flat = total.reshape(rows, -1)
        keep = min(width, flat.shape[1])
        best = mx.argpartition(-flat, keep - 1, axis=1)[:, :keep] if keep < flat.shape[1] else mx.broadcast_to(
            mx.arange(keep), (rows, keep))  # fmt: skip
        log_p = mx.take_along_axis(flat, best, axis=1)
        before, cell = best // POINTS, best % POINTS
        places = mx.take_along_axis(places, before[..., None], axis=1)
        offset = mx.zeros(log_p.shape)
        if within:
            weight, centre, _ = model.inside(mx.take_along_axis(h, before[..., None], axis=1), cell, i)
            offset = (mx.exp(weight) * mx.clip(centre, -0.5, 0.5)).sum(axis=-1)
        place = mx.where(given, mx.broadcast_to(known[:, None, i], cell.shape), cell + offset)
        places = mx.concatenate([places, place[..., None]], axis=-1)
    order = mx.argsort(-log_p, axis=1)
    log_p = mx.take_along_axis(log_p, order, axis=1)
    places = mx.take_along_axis(places, order[..., None], axis=1)
    return np.array(places, np.float64), np.array(log_p, np.float64)
