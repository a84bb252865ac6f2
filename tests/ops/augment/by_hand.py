"""What the tests of the augmentations share: a context, and colours by Python's colorsys."""

import colorsys

import mlx.core as mx
import numpy as np

from runtime.op import Context


def context(seed: int = 0, mode: str = "train") -> Context:
    return Context(mode=mode, key=mx.random.key(seed), step=mx.array(0), epoch=mx.array(0))


def images(count: int = 6, height: int = 9, width: int = 7, channels: int = 3, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).random((count, height, width, channels), np.float32))


def drawn_by(op, shape, seed: int = 0) -> dict[str, np.ndarray]:
    """What the op draws for images of `shape` in `context(seed)`."""
    drawn = op.draw(shape, mx.random.split(mx.random.key(seed))[0])
    return {name: np.array(values) for name, values in drawn.items()}


def jittered(x: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """One image (H, W, 3) in float64."""
    luma = np.array([0.299, 0.587, 0.114])
    x = np.clip(x.astype(np.float64) * brightness, 0, 1)
    mean = (x @ luma).mean()
    x = np.clip(contrast * x + (1 - contrast) * mean, 0, 1)
    x = np.clip(saturation * x + (1 - saturation) * (x @ luma)[..., None], 0, 1)
    turned = np.empty_like(x)
    for place in np.ndindex(x.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*x[place])
        turned[place] = colorsys.hsv_to_rgb((h + hue) % 1, s, v)
    return turned
