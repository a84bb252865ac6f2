"""Random shapes drawn over an image, as things that stand in the way."""

import math
from typing import Any

import numpy as np

from dataloaders.ops.each import DrawnOp
from dataloaders.ops.numpy_op import Names
from runtime.errors import UsageError

KINDS = ("rectangle", "circle", "triangle", "ellipse")


class RandomShapes(DrawnOp):
    """Draws 1 to `max_shapes` rectangles, circles, triangles and ellipses over images (H, W, C), uint8 or in [0, 1].

    max_size: most pixels of a side, at most and by default the image's shorter one. intensity_range: colours of a
    shape, within 0..254, one range or one for each channel. transparency_range: the opacity of all shapes of an image,
    0 leaves it alone. Every input gets the same shapes.
    """

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None, max_shapes: int = 3,
                 max_size: int | None = None, intensity_range: tuple[Any, ...] = (0, 254),
                 transparency_range: tuple[float, float] = (0.1, 0.9)):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.intensities: Any = intensity_range if isinstance(intensity_range[0], tuple) else (intensity_range,)
        if any(not 0 <= low <= high <= 254 for low, high in self.intensities):
            raise UsageError(f"RandomShapes: intensity_range must lie in 0..254, got {intensity_range}.")
        if not 0 <= transparency_range[0] <= transparency_range[1] <= 1:
            raise UsageError(f"RandomShapes: transparency_range must lie in 0..1, got {transparency_range}.")
        self.given = (max_shapes, max_size, transparency_range)
        self.max_shapes, self.max_size, self.transparency_range = self.given

    def set_rua_level(self, magnitude_coef: float) -> None:
        """Fewer, smaller and fainter shapes below level 1."""
        shapes, size, (low, high) = self.given
        self.max_shapes, self.max_size = math.ceil(magnitude_coef * shapes), size and math.ceil(magnitude_coef * size)
        self.transparency_range = (low, low + magnitude_coef * (high - low))

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        """Opacity and shapes: kind, box (left, top, right, bottom) inclusive, colour (C,) float64."""
        height, width, channels = (*shape, 1)[:3]
        most = min(height, width, self.max_size or height)
        if len(self.intensities) not in (1, channels):
            raise UsageError(f"RandomShapes has {len(self.intensities)} ranges of colours, got {channels} channels.")
        shapes = []
        for _ in range(rng.integers(1, self.max_shapes + 1) if self.max_shapes else 0):
            kind = KINDS[rng.integers(len(KINDS))]
            tall, wide = rng.integers(min(2, most), most + 1, 2)
            tall = wide if kind == "circle" else tall
            top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
            colour = [rng.integers(low, high + 1) for low, high in np.broadcast_to(self.intensities, (channels, 2))]
            shapes.append((kind, (left, top, left + wide - 1, top + tall - 1), np.array(colour, np.float64)))
        return rng.uniform(*self.transparency_range), shapes

    def changed(self, value: Any, drawn: Any) -> np.ndarray:
        """The image with the shapes."""
        x = np.asarray(value)
        opacity, shapes = drawn
        image = x.reshape(*x.shape[:2], -1).astype(np.float64)
        canvas, hit = np.zeros_like(image), np.zeros(x.shape[:2], bool)
        for kind, box, colour in shapes:
            inside = filled(kind, box, x.shape[0], x.shape[1])
            canvas[inside], hit = colour, hit | inside
        if np.issubdtype(x.dtype, np.floating):
            canvas /= 255
        mixed = np.where(hit[..., None], opacity * canvas + (1 - opacity) * image, image)
        return mixed.reshape(x.shape).astype(x.dtype)


def filled(kind: str, box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """Which pixels (height, width) a shape in a box covers, bool."""
    from PIL import Image, ImageDraw

    plane = Image.new("1", (width, height))
    pen, (left, top, right, bottom) = ImageDraw.Draw(plane), map(int, box)
    if kind == "rectangle":
        pen.rectangle((left, top, right, bottom), fill=1)
    elif kind == "triangle":
        pen.polygon([(left, bottom), ((left + right) // 2, top), (right, bottom)], fill=1)
    else:
        pen.ellipse((left, top, right, bottom), fill=1)
    return np.asarray(plane)
