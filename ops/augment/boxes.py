"""Boxes in a batch of images: where they lie, and erasing what is in them."""

from collections.abc import Sequence

import mlx.core as mx

from ops.augment.augment import Augment, Drawn, pair
from runtime.errors import UsageError


def inside(top: mx.array, bottom: mx.array, left: mx.array, right: mx.array, height: int, width: int) -> mx.array:
    """Which pixels lie in [top, bottom) x [left, right), (N, height, width) bool; the edges are (N,)."""
    rows, columns = mx.arange(height)[None], mx.arange(width)[None]
    down = (rows >= top[:, None]) & (rows < bottom[:, None])
    across = (columns >= left[:, None]) & (columns < right[:, None])
    return down[:, :, None] & across[:, None, :]


class Cutout(Augment):
    """Fills `holes` boxes of each image (B, H, W, C) with `fill`; DeVries and Taylor, arXiv 1708.04552.

    size: of a box, one number or (height, width), in pixels. A box's centre is uniform over the pixels, so that boxes
    may hang over the edge, as in the paper; contained: its place is uniform among those wholly in the image, as
    CoarseDropout's. prob: share of the images that get holes.
    """

    def __init__(
        self,
        inputs: str | Sequence[str],
        outputs: str | Sequence[str],
        mode="train",
        ds_id=None,
        size: int | Sequence[int] = 8,
        holes: int = 1,
        fill: float = 0.0,
        contained: bool = False,
        prob: float = 1.0,
    ):
        super().__init__(inputs, outputs, mode, ds_id, prob)
        self.size, self.holes, self.fill, self.contained = pair(size), holes, fill, contained
        if min(self.size) < 1 or holes < 1:
            raise UsageError(f"Cutout needs size >= 1 and holes >= 1, got size={size} and holes={holes}.")

    def draw(self, shape: tuple[int, ...], key: mx.array) -> Drawn:
        """The first row and column of each box, "top" and "left", (B, holes) int32; negative above the image."""
        firsts = []
        for name, axis, part in zip(("height", "width"), (1, 2), mx.random.split(key), strict=True):
            size, available = self.size[axis - 1], shape[axis]
            if self.contained and size > available:
                raise UsageError(f"Cutout: boxes of {name} {size} can't lie in images of {name} {available}.")
            places = available - size + 1 if self.contained else available
            first = mx.random.randint(0, places, (shape[0], self.holes), key=part)
            firsts.append(first if self.contained else first - size // 2)
        return {"top": firsts[0], "left": firsts[1]}

    def change(self, x: mx.array, drawn: Drawn) -> mx.array:
        """The images with holes."""
        height, width = x.shape[1:3]
        top, left = drawn["top"].reshape(-1), drawn["left"].reshape(-1)
        boxes = inside(top, top + self.size[0], left, left + self.size[1], height, width)
        holes = mx.any(boxes.reshape(-1, self.holes, height, width), axis=1)[..., None]
        return mx.where(holes, mx.array(self.fill, x.dtype), x)
