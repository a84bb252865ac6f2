"""Two-dimensional distributions, drawn anew for every batch, (n, 2) float32."""

import math

import numpy as np

from dataloaders.source import Generated
from runtime.errors import UsageError
from runtime.op import NumpyBatch


def mixture(centres: np.ndarray, std: float, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`count` points of the uniform mixture of N(centre, std^2 I) and the component of each: (count, 2), (count,)."""
    component = rng.integers(len(centres), size=count)
    return centres[component] + std * rng.standard_normal((count, 2)), component


class EightGaussians(Generated):
    """A uniform mixture of eight Gaussians on a circle, at multiples of 45 degrees.

    The std .562 is 0.1 ** 0.25: torchcfm (arXiv 2302.00482) hands sqrt(0.1) over as a variance. labelled: gives
    the component as "label".
    """

    shape = (2,)

    def __init__(self, size: int = 100_000, radius: float = 5.0, std: float = 0.562, labelled: bool = False):
        super().__init__(size)
        self.radius, self.std, self.labelled = radius, std, labelled
        self.classes = 8 if labelled else 0
        angles = np.arange(8) * math.pi / 4
        self._centres = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def draw(self, count: int, rng: np.random.Generator) -> NumpyBatch:
        """Points and, if labelled, their components."""
        x, component = mixture(self._centres, self.std, count, rng)
        return {"x": x, "label": component} if self.labelled else {"x": x}


class Moons(Generated):
    """Two interleaved half circles by torchdyn's recipe, scaled as torchcfm does.

    Of n points the first n // 2 lie on (cos a, sin a), the others on (1 - cos a, 1/2 - sin a); the angles are an even
    grid over [0, pi] with both ends, one grid per moon and draw (grid false: independent and uniform, and the moon a
    fair coin). Each point is moved by ONE number, uniform in [0, noise), added to both coordinates; then x -> 3 x - 1.
    Rows are shuffled. labelled: gives the moon as "label".
    """

    shape = (2,)

    def __init__(self, size: int = 100_000, noise: float = 0.2, grid: bool = True, labelled: bool = False):
        super().__init__(size)
        self.spread, self.grid, self.labelled = noise, grid, labelled
        self.classes = 2 if labelled else 0

    def draw(self, count: int, rng: np.random.Generator) -> NumpyBatch:
        """Points and, if labelled, their moons."""
        if self.grid:
            angle = np.concatenate([np.linspace(0, math.pi, count // 2), np.linspace(0, math.pi, count - count // 2)])
            inner = np.arange(count) >= count // 2
            order = rng.permutation(count)
            angle, inner = angle[order], inner[order]
        else:
            angle, inner = rng.uniform(0, math.pi, count), rng.random(count) < 0.5
        c, s = np.cos(angle), np.sin(angle)
        x = np.stack([np.where(inner, 1 - c, c), np.where(inner, 0.5 - s, s)], axis=1)
        x = 3 * (x + self.spread * rng.random((count, 1))) - 1
        return {"x": x, "label": inner} if self.labelled else {"x": x}


class Checkerboard(Generated):
    """Uniform on the black squares of a board of cells x cells over [-extent, extent]^2; the lower left is black."""

    shape = (2,)

    def __init__(self, size: int = 100_000, cells: int = 4, extent: float = 4.0):
        super().__init__(size)
        if cells < 2:
            raise UsageError(f"cells must be at least 2, got {cells}.")
        self.cells, self.extent = cells, extent
        self._black = np.array([(i, j) for i in range(cells) for j in range(cells) if (i + j) % 2 == 0])

    def draw(self, count: int, rng: np.random.Generator) -> NumpyBatch:
        """Points uniform within uniformly chosen squares."""
        corner = self._black[rng.integers(len(self._black), size=count)]
        return {"x": (corner + rng.random((count, 2))) * (2 * self.extent / self.cells) - self.extent}


class TwoSpirals(Generated):
    """Two arms of an Archimedean spiral, opposite each other, with Gaussian noise.

    Angle a = 2 pi turns sqrt(U) with U uniform, radius a / pi, point +-(radius cos a, radius sin a) + std N(0, I):
    E|x|^2 = 2 turns^2 + 2 std^2. labelled: gives the arm as "label".
    """

    shape = (2,)

    def __init__(self, size: int = 100_000, turns: float = 1.5, std: float = 0.1, labelled: bool = False):
        super().__init__(size)
        self.turns, self.std, self.labelled = turns, std, labelled
        self.classes = 2 if labelled else 0

    def draw(self, count: int, rng: np.random.Generator) -> NumpyBatch:
        """Points and, if labelled, their arms."""
        angle = 2 * math.pi * self.turns * np.sqrt(rng.random(count))
        arm = rng.integers(2, size=count)
        radius = (1 - 2 * arm) * angle / math.pi
        x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        x += self.std * rng.standard_normal((count, 2))
        return {"x": x, "label": arm} if self.labelled else {"x": x}


class Pairs(Generated):
    """Paired points with a known map: x0 ~ N(0, I), x = scale * rotation(angle degrees) x0 + shift.

    The straight paths between the pairs never cross, so flow matching on them has loss 0 at its optimum and its flow
    is `target`, exactly; the marginal of x is N(shift, scale^2 I).
    """

    shape = (2,)

    def __init__(
        self, size: int = 100_000, angle: float = 90.0, scale: float = 0.5, shift: tuple[float, ...] = (2.0, 1.0)
    ):
        super().__init__(size)
        if not -180 < angle < 180:
            raise UsageError(f"angle must lie between -180 and 180 degrees, where no paths cross; got {angle}.")
        if len(shift) != 2 or scale <= 0:
            raise UsageError(f"shift must be two numbers and scale positive, got {shift} and {scale}.")
        self.angle, self.scale, self.shift = angle, scale, tuple(shift)
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        self._matrix = scale * np.array([[c, -s], [s, c]])

    def target(self, x0: np.ndarray) -> np.ndarray:
        """The end point (n, 2) of each start point (n, 2)."""
        return x0 @ self._matrix.T + np.array(self.shift)

    def velocity(self, x: np.ndarray, t: float) -> np.ndarray:
        """The velocity (n, 2) of the flow at the points x (n, 2) and time t."""
        between = (1 - t) * np.eye(2) + t * self._matrix
        x0 = np.linalg.solve(between, (x - t * np.array(self.shift)).T).T
        return self.target(x0) - x0

    def draw(self, count: int, rng: np.random.Generator) -> NumpyBatch:
        """Pairs of start and end points."""
        x0 = rng.standard_normal((count, 2))
        return {"x": self.target(x0), "x0": x0}
