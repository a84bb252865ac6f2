"""Flips, crops, sizes and warps of an image together with its masks, boxes and keypoints."""

from collections.abc import Callable
from typing import Any

from dataloaders.ops.albumentations_op import JointOp, Settings

FILLS = {"value": "fill", "mask_value": "fill_mask"}
REFLECT_101 = 4  # OpenCV's number of this border
BORDERS = {"constant": 0, "edge": 1, "reflect": 2, "wrap": 3, "symmetric": 2, "reflect_101": 4}
METHODS = {"nearest_neighbor": 0, "bilinear": 1, "bicubic": 2}


class HorizontalFlip(JointOp):
    """Mirrors left and right."""


class VerticalFlip(JointOp):
    """Mirrors up and down."""


class Flip(JointOp):
    """Mirrors left and right, up and down, or both, each as often."""

    transform = "HorizontalFlip"

    def built(self, settings: Settings, wrap: Callable[[Any], Any] = lambda transform: transform) -> Any:
        """A choice of three; albumentations 2 has none of its own."""

        def choice(across: Any) -> Any:
            import albumentations as A

            down = A.VerticalFlip(p=1.0)
            return wrap(A.OneOf([across, down, A.Sequential([across, down], p=1.0)], p=1.0))

        return super().built(settings, choice)


class Transpose(JointOp):
    """Swaps rows and columns."""


class RandomRotate90(JointOp):
    """Turns by a random multiple of 90 degrees."""


class Crop(JointOp):
    """Cuts out the box x_min, y_min, x_max, y_max, in pixels."""


class CenterCrop(JointOp):
    """Cuts (height, width) out of the middle."""

    positional = ("height", "width")


class RandomCrop(JointOp):
    """Cuts (height, width) out of a random place."""

    positional = ("height", "width")


class CropNonEmptyMaskIfExists(JointOp):
    """Cuts (height, width) where the mask is not empty, if it is somewhere."""

    positional = ("height", "width")


class RandomCropFromBorders(JointOp):
    """Cuts random shares (crop_left, ...) off the borders."""


class BorderOp(JointOp):
    """Ops that fill in beyond a border, by FastEstimator's words or OpenCV's numbers; None: albumentations' own."""

    renamed, defaults = FILLS, {"border_mode": REFLECT_101}

    def translated(self, settings: Settings) -> Settings:
        """With numbers for words."""
        chosen = {name: value for name, value in super().translated(settings).items() if value is not None}
        for name, words in (("border_mode", BORDERS), ("interpolation", METHODS), ("mask_interpolation", METHODS)):
            if name in chosen:
                chosen[name] = words.get(chosen[name], chosen[name])
        return chosen


class CropAndPad(BorderOp):
    """Crops (negative) or pads (positive) the sides by pixels `px` or shares `percent`."""

    renamed, defaults = {"pad_mode": "border_mode", "pad_cval": "fill", "pad_cval_mask": "fill_mask"}, {}


class BBoxSafeRandomCrop(JointOp):
    """Cuts a random part that keeps all boxes."""


class RandomCropNearBBox(JointOp):
    """Cuts out the box [x1, y1, x2, y2] of the key `cropping_bbox_in`, its sides shifted by up to a share of its size.

    max_part_shift: that share, .3 by default, or two of them for height and width.
    """

    positional, extra, defaults = ("max_part_shift",), ("cropping_bbox",), {"max_part_shift": 0.3}

    def __init__(self, cropping_bbox_in: str, *values: Any, **settings: Any):
        super().__init__(*values, **settings)
        self.inputs = (*self.inputs, cropping_bbox_in)

    def translated(self, settings: Settings) -> Settings:
        """A number for both sides; albumentations would take it for the width alone."""
        share = settings["max_part_shift"]
        return {**settings, "max_part_shift": (share, share) if isinstance(share, int | float) else share}


class SizedCrop(JointOp):
    """Crops whose result has a size of its own; albumentations takes (height, width) as `size`."""

    def translated(self, settings: Settings) -> Settings:
        """With height and width as one argument."""
        settings = dict(settings)
        if "height" in settings and "width" in settings:
            settings["size"] = (settings.pop("height"), settings.pop("width"))
        return super().translated(settings)


class RandomResizedCrop(SizedCrop):
    """Cuts a part of random area and proportions and resizes it to (height, width)."""

    positional = ("height", "width")


class RandomSizedCrop(SizedCrop):
    """Cuts a part with a height in `min_max_height` and resizes it to (height, width)."""

    positional = ("min_max_height", "height", "width")


class RandomSizedBBoxSafeCrop(JointOp):
    """Cuts a random part that keeps all boxes and resizes it to (height, width)."""

    positional = ("height", "width")


class Resize(JointOp):
    """Resizes to (height, width)."""

    positional = ("height", "width")


class LongestMaxSize(JointOp):
    """Resizes so that the longer side is `max_size`."""

    positional, defaults = ("max_size",), {"max_size": 1024}


class SmallestMaxSize(JointOp):
    """Resizes so that the shorter side is `max_size`."""

    positional, defaults = ("max_size",), {"max_size": 1024}


class RandomScale(JointOp):
    """Resizes by a random factor 1 + scale_limit."""


class PadIfNeeded(BorderOp):
    """Pads to at least (min_height, min_width), by reflection unless told otherwise."""

    positional = ("min_height", "min_width")


class Rotate(BorderOp):
    """Rotates by a random angle within `limit`, in degrees."""

    positional = ("limit",)


class ShiftScaleRotate(BorderOp):
    """Shifts, scales and rotates at random, within limits."""


class Affine(BorderOp):
    """A random rotation (degrees), scale, shear (degrees) and shift (`translate`: pixels if int, shares if float)."""

    renamed = {"border_handling": "border_mode", "fill_value": "fill", "fill_value_mask": "fill_mask"}
    defaults = {}

    def translated(self, settings: Settings) -> Settings:
        """With pixels and shares under their own names."""
        chosen = super().translated(settings)
        if "translate" in chosen:
            shift = chosen.pop("translate")
            chosen["translate_px" if all_int(shift) else "translate_percent"] = shift
        return chosen


def all_int(values: Any) -> bool:
    """Whether a number, or every number in a tuple or a dictionary, is an integer."""
    if isinstance(values, dict):
        return all(all_int(value) for value in values.values())
    return isinstance(values, int) or (isinstance(values, tuple | list) and all(all_int(value) for value in values))


class ElasticTransform(BorderOp):
    """Displaces pixels by a smooth random field."""

    defaults = {"alpha": 34.0, "sigma": 4.0, "border_mode": REFLECT_101}


class GridDistortion(BorderOp):
    """Stretches the cells of a grid at random."""


class OpticalDistortion(BorderOp):
    """A random barrel or pincushion distortion."""


class RandomGridShuffle(JointOp):
    """Shuffles the cells of a grid."""


class MaskDropout(JointOp):
    """Erases objects of the mask, and the image there."""

    renamed = {"image_fill_value": "fill", "mask_fill_value": "fill_mask"}
