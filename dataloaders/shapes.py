"""Coloured shapes, drawn from a seed: images with class labels for machines without any data set."""

import numpy as np

from dataloaders.source import Source, digest
from runtime.errors import UsageError
from runtime.op import NumpyBatch

KINDS = ("disc", "square", "triangle", "cross", "ring")
NUMBERS = 10  # uniform numbers an image is made of


class Shapes(Source):
    """Image i is a function of (seed, i): one shape, its kind the label, of random place, size, angle and colours.

    size: pixels of a side; RGB in [-1, 1], (size, size, 3). A bright shape lies on a dark ground; every kind is equally
    likely, and edges are blended over one pixel.
    """

    def __init__(self, count: int = 50_000, size: int = 32, seed: int = 0):
        for name, value, least in (("count", count, 1), ("size", size, 8), ("seed", seed, 0)):
            if value < least:
                raise UsageError(f"Shapes: {name} must be at least {least}, got {value}.")
        self.count, self.size, self.seed = count, size, seed
        self.shape, self.classes = (size, size, 3), len(KINDS)

    def __len__(self) -> int:
        return self.count

    def take(self, indices: np.ndarray, rng: np.random.Generator) -> NumpyBatch:
        """The images of these numbers; `rng` is not needed."""
        drawn = np.array([np.random.default_rng([self.seed, int(i)]).random(NUMBERS) for i in indices], np.float32)
        kind, angle, radius, x, y = (drawn[:, k, None, None] for k in range(5))
        label = (kind * len(KINDS)).astype(np.int32)
        radius = 0.3 + 0.35 * radius  # half an image's side is 1
        x, y = ((2 * place - 1) * (0.95 - radius) for place in (x, y))
        cover = covers(label, 2 * np.pi * angle, radius, x, y, self.size)[..., None]
        bright, dark = 0.2 + 0.8 * drawn[:, None, None, 5:8], -1 + 0.6 * drawn[:, None, None, [8, 9, 8]]
        return {"x": dark + (bright - dark) * cover, "label": label[:, 0, 0]}

    def fingerprint(self) -> str:
        """A hash of the parameters."""
        return digest("Shapes", self.count, self.size, self.seed)


def covers(kind: np.ndarray, angle: np.ndarray, radius: np.ndarray, x: np.ndarray, y: np.ndarray, size: int):
    """The share of each pixel that lies in the shape, (N, size, size) float32, from numbers (N, 1, 1) of each image.

    kind: index into KINDS. Radius and centre are in halves of an image's side, from its middle.
    """
    grid = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
    dx, dy = grid - x, grid[:, None] - y
    c, s = np.cos(angle), np.sin(angle)
    u, v = (c * dx + s * dy) / radius, (c * dy - s * dx) / radius
    distance = np.choose(kind, distances(u, v)) * radius * size / 2  # in pixels
    return np.clip(0.5 - distance, 0, 1)


def distances(u: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    """How far points lie outside each kind of shape (negative: inside), for shapes that fit the unit circle."""
    r = np.hypot(u, v)
    a, b = np.abs(u), np.abs(v)
    square = np.maximum(a, b) - np.float32(0.5**0.5)
    triangle = np.maximum(-v, np.float32(0.75**0.5) * a + v / 2) - np.float32(0.5)
    cross = np.minimum(np.maximum(a - 0.95, b - 0.3), np.maximum(a - 0.3, b - 0.95))
    return [r - 1, square, triangle, cross, np.abs(r - 0.75) - 0.25]
