"""Walks over nests of modules, dicts, lists and tuples of arrays."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from runtime.slots import snapshot


def flatten(tree: Any) -> dict[str, mx.array]:
    """The arrays below `tree` by dotted path; private names ("_x", constants of a module) are left out."""
    return snapshot(tree)


def unflatten(arrays: dict[str, mx.array]) -> Any:
    """The nest that `arrays` was flattened from; tuples come back as lists."""
    return tree_unflatten(list(arrays.items()))


def count_parameters(model: nn.Module, trainable: bool = False) -> int:
    """How many numbers the model holds, a shared array once; without `trainable` BatchNorm statistics count too."""
    arrays = flatten(model.trainable_parameters() if trainable else model.parameters())
    return sum(array.size for array in {id(array): array for array in arrays.values()}.values())


def first_nonfinite(tree: Any) -> str | None:
    """The path of the first array with a NaN or an infinity, or None; one evaluation for the whole tree."""
    arrays = {path: array for path, array in flatten(tree).items() if mx.issubdtype(array.dtype, mx.inexact)}
    if not arrays:
        return None
    finite = np.array(mx.stack([mx.isfinite(array).all() for array in arrays.values()]))
    return next((path for path, ok in zip(arrays, finite, strict=True) if not ok), None)
