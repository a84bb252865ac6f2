"""Noise of measured impedance: how it is drawn, how likely a spectrum is, in which axes its errors are alike."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domains.eis import Impedance
from runtime.errors import UsageError

Real = NDArray[np.float64]
Kind = Literal["modulus", "proportional", "phase"]
KINDS: tuple[Kind, ...] = ("modulus", "proportional", "phase")
STEADY = 0.1  # of phase noise: errors of ln |Z| over those of the angle
LEAST = 1e-9  # of |Z|: a smaller real or imaginary part counts as this


def check_kind(kind: str) -> None:
    """Raises UsageError for anything but the three."""
    if kind not in KINDS:
        raise UsageError(f"noise must be one of {', '.join(KINDS)}, got {kind!r}.")


def noisy(z: Impedance, level: float | np.ndarray, rng: np.random.Generator, kind: str = "modulus") -> Impedance:
    """Z (..., F) with noise of relative size `level` (a number or (...)), complex.

    modulus: independent normal errors of level |Z| on real and imaginary part. proportional: of level |Re Z| and
    level |Im Z|. phase: of level radians on the angle and a tenth of level on ln |Z|, without which a circuit would
    have no density.
    """
    check_kind(kind)
    level = np.asarray(level, float)[..., None]
    real, imaginary = level * rng.standard_normal((2, *z.shape))
    if kind == "modulus":
        return z + np.abs(z) * (real + 1j * imaginary)
    if kind == "proportional":
        return z + real * z.real + 1j * imaginary * z.imag
    return z * np.exp(STEADY * imaginary + 1j * real)


def log_likelihood(observed: Impedance, model: Impedance, level: float, kind: str = "modulus") -> np.ndarray:
    """ln p(observed (..., F) | model (..., F)) in nats, (...), a density over real and imaginary parts in ohm."""
    check_kind(kind)
    if kind == "phase":  # normal in ln Z, whose plane's area is |Z|^-2 times that of Z
        off: Impedance = np.log(observed / model)
        sizes, parts, area = (level * STEADY, level), (off.real, off.imag), 2 * np.log(np.abs(observed))
    else:
        off, area = observed - model, 0.0
        own = (np.abs(model), np.abs(model)) if kind == "modulus" else (np.abs(model.real), np.abs(model.imag))
        sizes, parts = (level * own[0], level * own[1]), (off.real, off.imag)
    each = [-0.5 * (part / size) ** 2 - 0.5 * np.log(2 * np.pi) - np.log(size) for part, size in
            zip(parts, sizes, strict=True)]  # fmt: skip
    return (each[0] + each[1] - area).sum(axis=-1)


def axes(z: Impedance, kind: str) -> tuple[Impedance, Real, Real]:
    """What makes the noise's small errors dZ alike: Re(turn dZ) along and Im(turn dZ) across are of its level's size.

    turn complex of modulus 1, along and across in 1 / ohm, (..., F) each, of z (..., F).
    """
    size, ones = np.abs(z), np.ones(z.shape, np.complex128)
    if kind == "modulus":
        return ones, 1 / size, 1 / size
    if kind == "proportional":
        return ones, 1 / np.maximum(np.abs(z.real), LEAST * size), 1 / np.maximum(np.abs(z.imag), LEAST * size)
    return z.conj() / size, 1 / (STEADY * size), 1 / size


def white_squares(observed: Impedance, model: Impedance, kind: str) -> np.ndarray:
    """Mean square (...) of the errors of observed (F,) in a model's axes (..., F): level^2 on average."""
    turn, along, across = axes(model, kind)
    off = turn * (observed - model)
    return ((off.real * along) ** 2 + (off.imag * across) ** 2).mean(axis=-1) / 2
