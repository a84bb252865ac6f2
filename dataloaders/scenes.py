"""Images of several coloured shapes with masks: segmentation for machines without any data set."""

import numpy as np

from dataloaders.shapes import KINDS, covers
from dataloaders.source import Source, digest
from runtime.errors import UsageError
from runtime.op import NumpyBatch

EACH = 8  # uniform numbers a shape is made of


class Scenes(Source):
    """Image i is a function of (seed, i): `shapes` shapes over a noisy ground, later ones in front of earlier ones.

    "x" (size, size, 3) in [-1, 1]; "target" (size, size, 1) is 1 where a shape of the kind `wanted` (None: of any)
    is in front. Kind, place, size, angle, colour and the ground's colour are independent, so that a colour says
    nothing. noise: standard deviation of every pixel. Raises UsageError for an unknown kind.
    """

    def __init__(self, count: int = 5000, size: int = 32, shapes: int = 4, wanted: str | None = None,
                 noise: float = 0.5, seed: int = 0):  # fmt: skip
        for name, value, least in (("count", count, 1), ("size", size, 8), ("shapes", shapes, 1), ("seed", seed, 0)):
            if value < least:
                raise UsageError(f"Scenes: {name} must be at least {least}, got {value}.")
        if wanted is not None and wanted not in KINDS:
            raise UsageError(f"Scenes: wanted must be None or one of {', '.join(KINDS)}, got {wanted!r}.")
        self.count, self.size, self.shapes, self.wanted, self.noise_std = count, size, shapes, wanted, noise
        self.seed, self.shape = seed, (size, size, 3)

    def __len__(self) -> int:
        return self.count

    def take(self, indices: np.ndarray, rng: np.random.Generator) -> NumpyBatch:
        """The images of these numbers; `rng` is not needed."""
        own = [np.random.default_rng([self.seed, int(i)]) for i in indices]
        drawn = np.array([one.random(EACH * self.shapes + 3) for one in own], np.float32)[:, :, None, None]
        noise = np.array([one.standard_normal(self.shape, np.float32) for one in own])
        x = np.broadcast_to(np.moveaxis(2 * drawn[:, -3:] - 1, 1, -1), noise.shape)
        target = np.zeros(noise.shape[:-1], np.float32)
        for first in range(0, EACH * self.shapes, EACH):
            kind, angle, radius, across, down = (drawn[:, first + k] for k in range(5))
            kind, radius = (kind * len(KINDS)).astype(np.int32), 0.25 + 0.25 * radius
            x0, y0 = ((2 * place - 1) * (1 - radius) for place in (across, down))
            cover = covers(kind, 2 * np.pi * angle, radius, x0, y0, self.size)
            colour = np.moveaxis(2 * drawn[:, first + 5 : first + 8] - 1, 1, -1)
            x = x + (colour - x) * cover[..., None]
            target = np.where(cover > 0.5, self.wanted is None or kind == KINDS.index(self.wanted), target)
        x = np.clip(x + np.float32(self.noise_std) * noise, -1, 1)
        return {"x": x.astype(np.float32), "target": target[..., None].astype(np.float32)}

    def fingerprint(self) -> str:
        """A hash of the parameters."""
        return digest("Scenes", self.count, self.size, self.shapes, self.wanted, self.noise_std, self.seed)
