"""Samplers of time pairs (start r, end t), 0 <= r <= t <= 1, for objectives that learn average velocities.

Called with (count, moving, key): the first `moving` rows may have r < t, the others keep r = t and so train the
instantaneous velocity. A row that stands still keeps the time of the noisier end, t := r: moving r up instead would
change the distribution of times that flow matching is trained on.
"""

import mlx.core as mx

from losses.paths import LogitNormal, Uniform
from runtime.errors import UsageError


class SortedPairs:
    """Two draws of one sampler of times (None: uniform), the smaller as start (arXiv 2505.13447, section 4.3).

    ImageNet's setting is LogitNormal(0.4, 1.0), CIFAR-10's first LogitNormal(2.0, 2.0); the papers' noise lies at t=1,
    so their means have the other sign.
    """

    def __init__(self, times=None):
        self.times = times or Uniform()

    def __call__(self, count: int, moving: int, key: mx.array) -> mx.array:
        """(count, 2) float32."""
        first, second = (self.times(count, own) for own in mx.random.split(key))
        start, end = mx.minimum(first, second), mx.maximum(first, second)
        return mx.stack([start, mx.where(mx.arange(count) < moving, end, start)], axis=1)


class SeparatePairs:
    """Start and end from samplers of their own; ends before their start are raised to it (py-meanflow's v1, CIFAR-10).

    Defaults: start logit-normal (0.6, 1.6), end (4.0, 1.6). With moving = 75% of the rows about 70% have r < t.
    """

    def __init__(self, start=None, end=None):
        self.start, self.end = start or LogitNormal(0.6, 1.6), end or LogitNormal(4.0, 1.6)

    def __call__(self, count: int, moving: int, key: mx.array) -> mx.array:
        """(count, 2) float32."""
        start_key, end_key = mx.random.split(key)
        start, end = self.start(count, start_key), self.end(count, end_key)
        return mx.stack([start, mx.where(mx.arange(count) < moving, mx.maximum(start, end), start)], axis=1)


class DyadicPairs:
    """Intervals d = 1, 1/2, ..., 1/steps from multiples of d, in equal shares (arXiv 2410.12557).

    steps: a power of two. The first moving rows have the smallest d. Rows that stand still lie on the grid of 1/steps.
    """

    def __init__(self, steps: int = 128):
        if steps < 1 or steps & (steps - 1):
            raise UsageError(f"DyadicPairs: steps must be a power of two, got {steps}.")
        self.steps, self.levels = steps, steps.bit_length()

    def smallest(self, moving: int) -> int:
        """How many of the moving rows have the smallest d."""
        return -(-moving // self.levels)

    def __call__(self, count: int, moving: int, key: mx.array) -> mx.array:
        """(count, 2) float32."""
        halvings = self.levels - 1 - mx.arange(count) * self.levels // max(moving, 1)
        moves = mx.arange(count) < moving
        cells = mx.where(moves, 2.0 ** mx.maximum(halvings, 0), self.steps)
        start = mx.floor(mx.random.uniform(shape=(count,), key=key) * cells) / cells
        return mx.stack([start, mx.where(moves, start + 1 / cells, start)], axis=1)
