"""Values as JSON keeps them, so that what is read from a file equals what was written."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError


def as_plain(value: Any, name: str) -> Any:
    """A value made of dictionaries, lists, numbers, texts and None; arrays become lists. UsageError for others."""
    if isinstance(value, Mapping):
        return {str(key): as_plain(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(inner, name) for inner in value]
    if isinstance(value, np.ndarray | np.generic | mx.array):
        return value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UsageError(f"{name} must be made of numbers, texts, lists and dictionaries, got {value!r}.")
