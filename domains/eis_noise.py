"""Noise of measured impedance: how it is drawn, and how likely a spectrum is under it."""

from typing import Literal

import numpy as np

from domains.eis import Impedance
from runtime.errors import UsageError

Kind = Literal["modulus", "proportional", "phase"]
KINDS: tuple[Kind, ...] = ("modulus", "proportional", "phase")


def noisy(z: Impedance, level: float | np.ndarray, rng: np.random.Generator, kind: str = "modulus") -> Impedance:
    """Z (..., F) with noise of relative size `level` (a number or (...)), complex.

    modulus: independent normal errors of level |Z| on real and imaginary part. proportional: of level |Re Z| and
    level |Im Z|. phase: the angle alone is off, by level radians.
    """
    if kind not in KINDS:
        raise UsageError(f"noise must be one of {', '.join(KINDS)}, got {kind!r}.")
    level = np.asarray(level, float)[..., None]
    real, imaginary = level * rng.standard_normal((2, *z.shape))
    if kind == "modulus":
        return z + np.abs(z) * (real + 1j * imaginary)
    if kind == "proportional":
        return z + real * z.real + 1j * imaginary * z.imag
    return z * np.exp(1j * real)


def log_likelihood(observed: np.ndarray, model: np.ndarray, level: float) -> np.ndarray:
    """ln p(observed (..., F) | model (..., F)) under modulus noise of `level`, in nats, (...)."""
    sigma = level * np.abs(model)
    square = np.abs(observed - model) ** 2 / sigma**2
    return -(0.5 * square + np.log(2 * np.pi * sigma**2)).sum(axis=-1)
