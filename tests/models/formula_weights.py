"""Weights and inputs by a formula, so that a reference elsewhere can have the same ones."""

import zlib

import numpy as np


def formula(name: str, shape: tuple) -> np.ndarray:
    """Entry i (C order) is ((i^2 + 7 i + crc32(name)) mod 1009) / 1009 - 1/2, float64."""
    index = np.arange(int(np.prod(shape)), dtype=np.int64)
    return (((index * index + 7 * index + zlib.crc32(name.encode())) % 1009) / 1009 - 0.5).reshape(shape)


def weight(name: str, shape: tuple) -> np.ndarray:
    """float32; matrices (outputs, inputs) times 3 over the root of the inputs, weights of norms plus 1."""
    value = formula(name, shape)
    if name.endswith("norm.weight") or "norm1." in name or "norm2." in name:
        value = 1 + value
    elif len(shape) > 1 and not name.startswith("tokens"):
        value = value * 3 / np.sqrt(shape[-1])
    return value.astype(np.float32)
