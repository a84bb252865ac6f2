"""Learning-rate schedules: factors of the base rate as pure, traceable functions of the step.

Each is called with the optimizer step (0-d int32 array, 0 at the first update) and returns a 0-d float32 factor.
FastEstimator's, which give rates and count from 1, are in optimizers/decays.py.
"""

import mlx.core as mx

from runtime.errors import UsageError


class Schedule:
    """Linear warm-up over `warmup` steps, then `after(progress)`, progress going from 0 to 1 up to step `total`."""

    def __init__(self, warmup: int = 0, total: int | None = None):
        if warmup < 0 or (total is not None and total <= warmup):
            raise UsageError(f"a schedule needs 0 <= warmup < total, got warmup={warmup}, total={total}.")
        self.warmup, self.total = warmup, total

    def __call__(self, step: mx.array) -> mx.array:
        """The factor at a step; step 0 of a warm-up has 1/warmup, not 0."""
        number = step.astype(mx.float32)
        length = 1 if self.total is None else self.total - self.warmup
        factor = self.after(mx.clip((number - self.warmup) / length, 0.0, 1.0))
        if self.warmup == 0:
            return factor
        return mx.where(number < self.warmup, (number + 1) / self.warmup, factor)

    def after(self, progress: mx.array) -> mx.array:
        """The factor after the warm-up."""
        raise NotImplementedError


class Constant(Schedule):
    """1 after the warm-up."""

    def after(self, progress: mx.array) -> mx.array:
        """Always 1."""
        return mx.ones_like(progress)


class Cosine(Schedule):
    """Half a cosine from 1 to `minimum` (arXiv 1608.03983, eq. 5, one cycle)."""

    def __init__(self, total: int, warmup: int = 0, minimum: float = 0.0):
        super().__init__(warmup, total)
        self.minimum = minimum

    def after(self, progress: mx.array) -> mx.array:
        """minimum + (1 - minimum) (1 + cos(pi progress)) / 2."""
        return self.minimum + (1 - self.minimum) * 0.5 * (1 + mx.cos(mx.array(3.141592653589793) * progress))


class Linear(Schedule):
    """A straight line from 1 to `minimum`."""

    def __init__(self, total: int, warmup: int = 0, minimum: float = 0.0):
        super().__init__(warmup, total)
        self.minimum = minimum

    def after(self, progress: mx.array) -> mx.array:
        """1 - (1 - minimum) progress."""
        return 1 - (1 - self.minimum) * progress


class Trapezoid(Schedule):
    """1 up to the last `decay` of the steps, then a straight line to `minimum` (arXiv 2405.18392, section 3).

    decay: share of the steps after the warm-up. Until it begins, `total` may still be changed on a resume.
    """

    def __init__(self, total: int, warmup: int = 0, decay: float = 0.2, minimum: float = 0.0):
        super().__init__(warmup, total)
        if not 0 < decay <= 1:
            raise UsageError(f"Trapezoid: decay must be a share of the steps, above 0 and at most 1, got {decay}.")
        self.decay, self.minimum = decay, minimum

    def after(self, progress: mx.array) -> mx.array:
        """1 - (1 - minimum) max(0, progress - 1 + decay) / decay."""
        return 1 - (1 - self.minimum) * mx.maximum(progress - 1 + self.decay, 0) / self.decay
