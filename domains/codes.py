"""Codes of class numbers: what the loader writes and a network's output is compared with."""

import numpy as np

from runtime.errors import UsageError


def hadamard(n_classes: int, code_length: int | None = None) -> np.ndarray:
    """Codewords (n_classes, code_length) float32 of +1 and -1: rows of Sylvester's Hadamard matrix.

    code_length: a power of 2, by default the least that is at least n_classes. The first column, which would be +1
    everywhere, alternates from -1, as in FastEstimator, so that it too tells classes apart. UsageError otherwise.
    """
    length = 1 << (n_classes - 1).bit_length() if code_length is None else code_length
    if n_classes < 2 or length < n_classes or length & (length - 1):
        raise UsageError(
            f"a Hadamard code needs at least 2 classes and a code_length that is a power of 2 and at least as many, "
            f"got n_classes={n_classes} and code_length={code_length}."
        )
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < length:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    matrix[::2, 0] = -1
    return matrix[:n_classes]
