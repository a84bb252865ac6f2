"""Flips and crops of whole batches."""

from collections.abc import Sequence

import mlx.core as mx

from ops.augment.augment import Augment, Drawn, each, within
from runtime.errors import UsageError

BORDERS = ("constant", "reflect")


class RandomFlip(Augment):
    """Mirrors each image of (B, H, W, C) with probability `horizontal` left-right and `vertical` up-down."""

    def __init__(self, inputs, outputs, mode="train", ds_id=None, horizontal: float = 0.5, vertical: float = 0.0):
        super().__init__(inputs, outputs, mode, ds_id)
        self.horizontal = within(self, "horizontal", horizontal, 0, 1)
        self.vertical = within(self, "vertical", vertical, 0, 1)

    def draw(self, shape: tuple[int, ...], key: mx.array) -> Drawn:
        """Whether to mirror: "across" and "down", (B,) bool."""
        uniform = mx.random.uniform(shape=(2, shape[0]), key=key)
        return {"across": uniform[0] < self.horizontal, "down": uniform[1] < self.vertical}

    def change(self, x: mx.array, drawn: Drawn) -> mx.array:
        """The images, mirrored where drawn."""
        if self.horizontal > 0:
            x = mx.where(each(drawn["across"]), x[:, :, ::-1], x)
        if self.vertical > 0:
            x = mx.where(each(drawn["down"]), x[:, ::-1], x)
        return x


class RandomCrop(Augment):
    """Cuts a window (height, width) out of each image (B, H, W, C), every place equally likely.

    padding: pixels added on each side first, as the usual CIFAR recipe does with 4. border: what they hold, "constant"
    (`fill`) or "reflect" (mirrored about the edge pixel, which is not repeated).
    """

    def __init__(
        self,
        height: int,
        width: int,
        inputs: str | Sequence[str],
        outputs: str | Sequence[str],
        mode="train",
        ds_id=None,
        padding: int = 0,
        border: str = "constant",
        fill: float = 0.0,
    ):
        super().__init__(inputs, outputs, mode, ds_id)
        if min(height, width) < 1 or padding < 0:
            raise UsageError(
                f"RandomCrop needs a window of at least 1x1 and padding >= 0, got {height}x{width}, padding={padding}."
            )
        if border not in BORDERS:
            raise UsageError(f"RandomCrop: border must be one of {', '.join(BORDERS)}, got {border!r}.")
        self.height, self.width, self.padding, self.border, self.fill = height, width, padding, border, fill

    def draw(self, shape: tuple[int, ...], key: mx.array) -> Drawn:
        """The window's first row and column in the padded image, "top" and "left", (B,) int32."""
        batch, height, width, _ = shape
        rows, columns = height + 2 * self.padding - self.height, width + 2 * self.padding - self.width
        if min(rows, columns) < 0:
            raise UsageError(
                f"RandomCrop can't cut {self.height}x{self.width} out of {height}x{width} with padding={self.padding}."
            )
        if self.border == "reflect" and self.padding >= min(height, width):
            raise UsageError(f"RandomCrop can't reflect {self.padding} pixels of images of {height}x{width}.")
        down, across = mx.random.split(key)
        return {
            "top": mx.random.randint(0, rows + 1, (batch,), key=down),
            "left": mx.random.randint(0, columns + 1, (batch,), key=across),
        }

    def change(self, x: mx.array, drawn: Drawn) -> mx.array:
        """The windows, (B, height, width, C)."""
        rows, seen_rows = self.sources(drawn["top"], self.height, x.shape[1])
        columns, seen_columns = self.sources(drawn["left"], self.width, x.shape[2])
        batch, _, width, channels = x.shape
        x = mx.take_along_axis(x.reshape(batch, -1, width * channels), rows[:, :, None], axis=1)
        x = x.reshape(batch, self.height, width, channels)
        x = mx.take_along_axis(x, columns[:, None, :, None], axis=2)
        if self.border == "reflect" or self.padding == 0:
            return x
        return mx.where((seen_rows[:, :, None] & seen_columns[:, None, :])[..., None], x, mx.array(self.fill, x.dtype))

    def sources(self, first: mx.array, size: int, available: int) -> tuple[mx.array, mx.array]:
        """Which pixel each of `size` pixels comes from, (B, size) int32, and whether it lies in the image."""
        index = first[:, None] + mx.arange(size) - self.padding
        last = available - 1
        if self.border == "reflect":
            index = last - mx.abs(last - mx.abs(index))
        seen = (index >= 0) & (index <= last)
        return mx.clip(index, 0, last), seen
