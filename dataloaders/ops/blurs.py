"""Blurs of an image alone, by albumentations and OpenCV."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dataloaders.ops.albumentations_op import ImageOp, Settings
from dataloaders.ops.each import DrawnOp
from dataloaders.ops.numpy_op import Names
from runtime.errors import UsageError


class Blur(ImageOp):
    """A box blur of random width; advanced: a generalised Gaussian of random shape, direction and noise."""

    defaults = {"blur_limit": 7}
    renamed = {"sigmaX_limit": "sigma_x_limit", "sigmaY_limit": "sigma_y_limit"}
    shapes = ("sigmaX_limit", "sigmaY_limit", "rotate_limit", "beta_limit", "noise_limit")

    def translated(self, settings: Settings) -> Settings:
        """Without the shape's arguments for a box."""
        s = dict(settings)
        self.transform = "AdvancedBlur" if s.pop("advanced", False) else "Blur"
        if self.transform == "Blur":
            s = {name: value for name, value in s.items() if name not in self.shapes}
        return super().translated(s)


class GaussianBlur(DrawnOp):
    """A Gaussian blur of images (H, W, C): an odd width from `blur_limit`, a standard deviation from `sigma_limit`.

    A single width is the greatest, from 3 on; a single sigma the greatest, from 0 on. Sigma 0 stands for OpenCV's own
    weights of that width, width 0 for its width of that sigma. albumentations 2.0.8 makes NaN of sigma 0.
    """

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None,
                 blur_limit: int | Sequence[int] = 3, sigma_limit: float | Sequence[float] = 0.0):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        low, high = (min(3, blur_limit), blur_limit) if isinstance(blur_limit, int) else blur_limit
        self.widths = [k for k in range(low, high + 1) if k % 2 or k == high == 0]
        self.sigmas = (0.0, sigma_limit) if isinstance(sigma_limit, int | float) else (sigma_limit[0], sigma_limit[1])
        if not self.widths or min(self.sigmas) < 0 or (high == 0 and min(self.sigmas) == 0):
            raise UsageError(
                "GaussianBlur needs a range with an odd width, or width 0 and sigmas above 0, got "
                f"blur_limit={blur_limit} and sigma_limit={sigma_limit}."
            )

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[int, float]:
        """Width and sigma."""
        return self.widths[rng.integers(len(self.widths))], rng.uniform(*self.sigmas)

    def changed(self, value: Any, drawn: tuple[int, float]) -> np.ndarray:
        """The blurred image."""
        import cv2

        image, (width, sigma) = np.asarray(value), drawn
        return cv2.GaussianBlur(image, (width, width), sigma).reshape(image.shape)


class MedianBlur(ImageOp):
    """A median filter of random width."""

    defaults = {"blur_limit": 5}


class MotionBlur(ImageOp):
    """A blur along a random line."""

    defaults = {"blur_limit": 7}


class Defocus(ImageOp):
    """A lens out of focus."""


class ZoomBlur(ImageOp):
    """A blur by zooming."""
