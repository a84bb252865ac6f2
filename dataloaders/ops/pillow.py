"""Images changed by Pillow: FastEstimator's building blocks of RUA, each with a strength that RUA can set."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dataloaders.ops.each import DrawnOp
from dataloaders.ops.numpy_op import Names
from runtime.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

Limit = float | Sequence[float]


class PillowOp(DrawnOp):
    """Changes images (H, W, 3), (H, W, 1) or (H, W), uint8; every input gets the same draw, every sample its own.

    limit: the draws' range, a number v for (-v, v). A subclass gives `change`.
    """

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None, limit: Limit = 0.0):
        super().__init__(inputs, outputs, mode, ds_id)
        low, high = (-abs(limit), abs(limit)) if isinstance(limit, int | float) else limit
        if low > high:
            raise UsageError(f"{type(self).__name__} needs a range that rises, got {limit}.")
        self.limit = self.full = (low, high)

    def set_rua_level(self, magnitude_coef: float) -> None:
        """Draws from the middle of the range only: a share 0 to 1 of its width."""
        low, high = self.full
        middle, half = (low + high) / 2, magnitude_coef * (high - low) / 2
        self.limit = (middle - half, middle + half)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        """What `change` gets, by default uniform in the range."""
        return rng.uniform(*self.limit)

    def change(self, image: "Image", drawn: Any) -> Any:
        """The changed image."""
        raise NotImplementedError

    def changed(self, value: Any, drawn: Any) -> np.ndarray:
        """One array after `change`; UsageError for what Pillow can't hold."""
        from PIL import Image

        x = np.asarray(value)
        if x.dtype != np.uint8 or x.shape[2:] not in ((), (1,), (3,)):
            raise UsageError(f"{type(self).__name__} needs uint8 images (H, W, 1 or 3), got {x.dtype} {x.shape}.")
        flat = x[..., 0] if x.shape[2:] == (1,) else x
        return np.asarray(self.change(Image.fromarray(flat), drawn)).reshape(x.shape)


class AutoContrast(PillowOp):
    """Stretches each channel to 0..255."""

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None):
        super().__init__(inputs, outputs, mode, ds_id)

    def change(self, image: "Image", drawn: float) -> "Image":
        """The stretched image."""
        from PIL import ImageOps

        return ImageOps.autocontrast(image)


class Enhance(PillowOp):
    """Mixes the image with a plain version of it: factor 1 + draw, where 0 is the plain one and 1 the image."""

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None, limit: Limit = 0.54):
        super().__init__(inputs, outputs, mode, ds_id, limit)

    def change(self, image: "Image", drawn: float) -> "Image":
        """The mixture; Pillow names its enhancers as the subclasses are named."""
        from PIL import ImageEnhance

        return getattr(ImageEnhance, type(self).__name__)(image).enhance(1.0 + drawn)


class Brightness(Enhance):
    """A random brightness; factor 0 is black."""


class Contrast(Enhance):
    """A random contrast; factor 0 is the image's mean grey."""


class Color(Enhance):
    """A random saturation; factor 0 is grey."""


class Sharpness(Enhance):
    """A random sharpness; factor 0 is smoothed."""


class Shear(PillowOp):
    """Shears by a random share of the image's length, then squeezes what has grown back to the image's size."""

    across = True

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None,
                 shear_coef: Limit = 0.3):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id, shear_coef)

    def change(self, image: "Image", drawn: float) -> "Image":
        """Place x of a row y comes from x + drawn y (or y from y + drawn x), shifted so that nothing is cut off."""
        width, height = image.size
        grown = round(abs(drawn) * (width if self.across else height))
        shift = -grown if drawn > 0 else 0
        if self.across:
            return affine(image, (width + grown, height), (1, drawn, shift, 0, 1, 0)).resize((width, height))
        return affine(image, (width, height + grown), (1, 0, 0, drawn, 1, shift)).resize((width, height))


class ShearX(Shear):
    """Shears along x."""


class ShearY(Shear):
    """Shears along y."""

    across = False


class Translate(PillowOp):
    """Shifts by a random share of the image's length; a positive draw moves left or up, and black comes in."""

    across = True

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None,
                 shift_limit: Limit = 0.2):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id, shift_limit)

    def change(self, image: "Image", drawn: float) -> "Image":
        """The shifted image."""
        width, height = image.size
        x, y = (drawn * width, 0) if self.across else (0, drawn * height)
        return affine(image, image.size, (1, 0, x, 0, 1, y))


class TranslateX(Translate):
    """Shifts along x."""


class TranslateY(Translate):
    """Shifts along y."""

    across = False


def affine(image: "Image", size: tuple[int, int], matrix: tuple[float, ...]) -> "Image":
    """An image (width, height) whose pixel (x, y) is the old one's at (a x + b y + c, d x + e y + f), bicubic."""
    from PIL import Image

    return image.transform(size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC)
