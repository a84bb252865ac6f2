"""Random streams as pure functions of (seed, place): a resumed run draws what the first would have drawn."""

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError

KEYS, HOST = 0, 1  # the first word of a stream keeps device keys and host generators apart
LIMIT = 2**32  # a larger place would be split into two words, which another stream could spell


def _sequence(seed: int, *place: int) -> np.random.SeedSequence:
    if not 0 <= seed < 2**64:
        raise UsageError(f"seed must be an integer from 0 to 2**64 - 1, got {seed}.")
    if not all(0 <= word < LIMIT for word in place):
        raise UsageError(f"the place in a random stream must be made of integers from 0 to 2**32 - 1, got {place[1:]}.")
    return np.random.SeedSequence(seed, spawn_key=place)


def step_key(seed: int, step: int, micro: int = 0, rank: int = 0) -> mx.array:
    """The PRNG key (2,) uint32 of one micro-step on one rank; each argument changes it."""
    return mx.array(_sequence(seed, KEYS, step, micro, rank).generate_state(2))


def numpy_rng(seed: int, *stream: int | str) -> np.random.Generator:
    """The host generator of a stream, for example `numpy_rng(seed, "shuffle", epoch)`."""
    words = (zlib.crc32(part.encode()) if isinstance(part, str) else part for part in stream)
    return np.random.default_rng(_sequence(seed, HOST, *words))


@contextmanager
def global_key_kept() -> Iterator[None]:
    """Within: MLX's global random state may be drawn from; afterwards it is what it was.

    It can't be assigned in MLX 0.32, but its key is the 64 bits of its seed.
    """
    state: Any = mx.random.state
    high, low = state[0].tolist()
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)


def set_random_seed(seed: int) -> None:
    """Starts the global random streams of Python, NumPy and MLX (this thread's) anew, for scripts and notebooks.

    Training here needs none of them: its keys come from `step_key`, its host generators from `numpy_rng`. UsageError
    for a seed that is no integer from 0 to 2**64 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise UsageError(f"seed must be an integer from 0 to 2**64 - 1, got {seed!r}.")
    random.seed(seed)
    np.random.seed(seed if seed < LIMIT else [seed % LIMIT, seed // LIMIT])  # NumPy takes words of 32 bits
    mx.random.seed(seed)
