"""Random brightness, contrast, saturation and hue of whole batches."""

import mlx.core as mx

from ops.augment.augment import Augment, Drawn, each
from runtime.errors import UsageError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
NAMES = ("brightness", "contrast", "saturation", "hue")
Limit = float | tuple[float, float]


class ColorJitter(Augment):
    """Changes each image's brightness, contrast, saturation and hue, in this order, (B, H, W, C) with C = 1 or 3.

    brightness, contrast, saturation: a number v for a factor uniform in [max(0, 1 - v), 1 + v], or the range itself;
    hue: a number v <= .5 for a shift uniform in [-v, v], in turns of the colour circle, or the range itself. The
    formulas are those of torchvision's ColorJitter, whose order is random. value_range: what black and white are;
    results are clipped to it after each change. prob: share of the images that change. Grey images (C = 1) only change
    brightness and contrast.
    """

    def __init__(
        self,
        inputs,
        outputs,
        mode="train",
        ds_id=None,
        brightness: Limit = 0.2,
        contrast: Limit = 0.2,
        saturation: Limit = 0.2,
        hue: Limit = 0.2,
        value_range: tuple[float, float] = (0.0, 1.0),
        prob: float = 1.0,
    ):
        super().__init__(inputs, outputs, mode, ds_id, prob)
        limits = zip(NAMES, (brightness, contrast, saturation, hue), strict=True)
        self.ranges = {name: limit_range(name, limit) for name, limit in limits}
        if value_range[0] >= value_range[1]:
            raise UsageError(f"ColorJitter: value_range must rise, got {value_range}.")
        self.black, self.white = value_range

    def draw(self, shape: tuple[int, ...], key: mx.array) -> Drawn:
        """Three factors and the hue's shift, each (B,)."""
        parts = zip(self.ranges.items(), mx.random.split(key, len(NAMES)), strict=True)
        return {name: mx.random.uniform(low, high, (shape[0],), key=part) for (name, (low, high)), part in parts}

    def change(self, x: mx.array, drawn: Drawn) -> mx.array:
        """The images in other colours."""
        if not mx.issubdtype(x.dtype, mx.floating) or x.shape[-1] not in (1, 3):
            raise UsageError(f"ColorJitter needs floating images with 1 or 3 channels, got {x.dtype} {tuple(x.shape)}.")
        scale = self.white - self.black
        y = (x - self.black) / scale if (self.black, self.white) != (0, 1) else x
        by = {name: each(values).astype(x.dtype) for name, values in drawn.items()}
        if self.moves("brightness"):
            y = mx.clip(y * by["brightness"], 0, 1)
        if self.moves("contrast"):
            mean = grey(y).mean(axis=(1, 2, 3), keepdims=True)
            y = mx.clip(mean + by["contrast"] * (y - mean), 0, 1)
        if x.shape[-1] == 3 and self.moves("saturation"):
            plain = grey(y)
            y = mx.clip(plain + by["saturation"] * (y - plain), 0, 1)
        if x.shape[-1] == 3 and self.moves("hue"):
            y = hue_shifted(y, by["hue"])
        return y * scale + self.black if (self.black, self.white) != (0, 1) else y

    def moves(self, name: str) -> bool:
        """Whether a change of this name can do anything."""
        return self.ranges[name] != ((0, 0) if name == "hue" else (1, 1))


def limit_range(name: str, limit: Limit) -> tuple[float, float]:
    """The range that a number stands for; UsageError where it makes no sense."""
    if isinstance(limit, int | float):
        low, high = (-limit, limit) if name == "hue" else (max(0.0, 1 - limit), 1 + limit)
        if limit < 0:
            raise UsageError(f"ColorJitter: {name} must be at least 0, got {limit}.")
    else:
        low, high = limit
    least, most = (-0.5, 0.5) if name == "hue" else (0, float("inf"))
    if not least <= low <= high <= most:
        raise UsageError(f"ColorJitter: {name} must give a range within {least}..{most}, got {limit}.")
    return low, high


def grey(x: mx.array) -> mx.array:
    """Luma of images (B, H, W, 1 or 3), (B, H, W, 1)."""
    return x if x.shape[-1] == 1 else (x * mx.array(LUMA, x.dtype)).sum(axis=-1, keepdims=True)


def hue_shifted(x: mx.array, turns: mx.array) -> mx.array:
    """RGB in [0, 1], (B, H, W, 3), turned on the colour circle by `turns` (B, 1, 1, 1), keeping value and saturation.

    A channel's value is high - chroma clip(min(k, 4 - k), 0, 1) with k = (n + 6 hue) mod 6 and n = 5, 3, 1.
    """
    high, low = x.max(axis=-1, keepdims=True), x.min(axis=-1, keepdims=True)
    chroma = high - low
    safe = mx.where(chroma > 0, chroma, 1)
    r, g, b = (x[..., i : i + 1] for i in range(3))
    sector = mx.where(high == r, (g - b) / safe, mx.where(high == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    k = mx.remainder(mx.array([5, 3, 1], x.dtype) + sector + 6 * turns, 6)
    return high - chroma * mx.clip(mx.minimum(k, 4 - k), 0, 1)
