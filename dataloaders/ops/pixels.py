"""Colours, noise, weather and other changes of an image alone, by albumentations."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dataloaders.ops.albumentations_op import ImageOp, Settings
from dataloaders.ops.numpy_op import Names


class RangeOp(ImageOp):
    """Transforms with ranges that FastEstimator gives by two arguments, `joined`: {range: (low, high)}."""

    joined: dict[str, tuple[str, str]] = {}

    def translated(self, settings: Settings) -> Settings:
        """With both ends as one argument."""
        settings = dict(settings)
        for name, ends in self.joined.items():
            if all(end in settings for end in ends):
                settings[name] = tuple(settings.pop(end) for end in ends)
        return super().translated(settings)


class CoarseDropout(ImageOp):
    """Erases up to `max_holes` boxes of up to (max_height, max_width): pixels if int, shares if float."""

    defaults = {"max_holes": 8, "max_height": 8, "max_width": 8}
    renamed = {"fill_value": "fill"}

    def translated(self, settings: Settings) -> Settings:
        """A missing lower bound is the upper one, as in FastEstimator."""
        s = dict(settings)
        for name, part in (
            ("num_holes_range", "holes"),
            ("hole_height_range", "height"),
            ("hole_width_range", "width"),
        ):
            high, low = s.pop(f"max_{part}"), s.pop(f"min_{part}", None)
            s.setdefault(name, (high if low is None else low, high))
        return super().translated(s)


class ColorJitter(ImageOp):
    """Changes brightness, contrast, saturation and hue in a random order."""

    defaults = {"hue": 0.2}


class RandomBrightnessContrast(ImageOp):
    """Changes brightness and contrast."""


class HueSaturationValue(ImageOp):
    """Shifts hue, saturation and value."""


class RGBShift(ImageOp):
    """Shifts each channel by a number of its own."""


class RandomGamma(ImageOp):
    """A random gamma, in percent."""


class CLAHE(ImageOp):
    """Contrast-limited adaptive histogram equalisation (uint8)."""


class Equalize(ImageOp):
    """Equalises the histogram (uint8); eq_mode: "cv" or "pil"."""

    renamed = {"eq_mode": "mode"}


class Posterize(ImageOp):
    """Keeps `num_bits` bits of each channel (uint8)."""


class Solarize(ImageOp):
    """Inverts what lies above `threshold`, of 255 (or a range of it)."""

    defaults = {"threshold": 128}

    def translated(self, settings: Settings) -> Settings:
        """The threshold as a share."""
        s = dict(settings)
        limit = s.pop("threshold")
        low, high = limit if isinstance(limit, tuple | list) else (limit, limit)
        s.setdefault("threshold_range", (low / 255, high / 255))
        return super().translated(s)


class InvertImg(ImageOp):
    """255 - x, or 1 - x for floats."""


class Sharpen(ImageOp):
    """Sharpens and overlays."""


class ToGray(ImageOp):
    """Grey, in three channels."""


class ToSepia(ImageOp):
    """Sepia."""


class ToFloat(ImageOp):
    """Divides by `max_value`, by default the type's largest."""


class FromFloat(ImageOp):
    """Multiplies by `max_value` and casts to `dtype`."""

    defaults = {"dtype": "uint16"}


class Normalize(ImageOp):
    """(x / max_pixel_value - mean) / std, ImageNet's by default."""


class ReferenceOp(ImageOp):
    """Transforms towards a random one of `reference_images`: arrays (H, W, C), or what `read_fn` makes arrays of."""

    def __init__(self, inputs: Names, outputs: Names, reference_images: Sequence[Any], mode: Names = None,
                 ds_id: Names = None, read_fn: Callable[[Any], np.ndarray] = np.asarray, **settings: Any):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id, metadata_key="references", **settings)
        self.more = {"references": [np.asarray(read_fn(image)) for image in reference_images]}


class HistogramMatching(ReferenceOp):
    """Gives each channel the reference's histogram, blended with the image by a random share `blend_ratio`."""


class FDA(ReferenceOp):
    """Gives the low frequencies, a share `beta_limit` of them, the reference's amplitudes (arXiv 2004.05498)."""

    defaults = {"beta_limit": 0.1}


class RandomErasing(ImageOp):
    """Erases a random box of area `scale` and proportions `ratio` (arXiv 1708.04896)."""

    transform = "Erasing"


class ChannelShuffle(ImageOp):
    """Shuffles the channels."""


class ChannelDropout(ImageOp):
    """Erases channels."""

    renamed = {"fill_value": "fill"}


class GaussianNoise(ImageOp):
    """Adds Gaussian noise of variance `var_limit` and mean `mean`, in units of 1/255."""

    transform, defaults = "GaussNoise", {"var_limit": (10.0, 50.0), "mean": 0.0}

    def translated(self, settings: Settings) -> Settings:
        """Standard deviations and means as shares of the largest value."""
        s = dict(settings)
        limit, mean = s.pop("var_limit"), s.pop("mean")
        low, high = limit if isinstance(limit, tuple | list) else (0, limit)
        s.setdefault("std_range", (low**0.5 / 255, high**0.5 / 255))
        s.setdefault("mean_range", (mean / 255, mean / 255))
        return super().translated(s)


class MultiplicativeNoise(ImageOp):
    """Multiplies by random numbers."""


class ISONoise(ImageOp):
    """A camera sensor's noise."""


class Downscale(RangeOp):
    """Scales down and up again."""

    joined = {"scale_range": ("scale_min", "scale_max")}

    def translated(self, settings: Settings) -> Settings:
        """With one interpolation for both ways."""
        s = dict(settings)
        if "interpolation" in s:
            s["interpolation_pair"] = dict.fromkeys(("upscale", "downscale"), s.pop("interpolation"))
        return super().translated(s)


class ImageCompression(RangeOp):
    """JPEG's artefacts (or "webp"'s) at a random quality."""

    joined = {"quality_range": ("quality_lower", "quality_upper")}


class RandomFog(RangeOp):
    """Fog."""

    joined = {"fog_coef_range": ("fog_coef_lower", "fog_coef_upper")}


class RandomRain(RangeOp):
    """Rain."""

    joined, defaults = {"slant_range": ("slant_lower", "slant_upper")}, {"drop_length": 20}

    def translated(self, settings: Settings) -> Settings:
        """None is albumentations' default rain."""
        return {k: v for k, v in super().translated(settings).items() if not (k == "rain_type" and v is None)}


class RandomShadow(RangeOp):
    """Shadows."""

    joined = {"num_shadows_limit": ("num_shadows_lower", "num_shadows_upper")}


class RandomSnow(RangeOp):
    """Snow."""

    joined = {"snow_point_range": ("snow_point_lower", "snow_point_upper")}


class RandomSunFlare(RangeOp):
    """A sun's flare."""

    joined = {
        "angle_range": ("angle_lower", "angle_upper"),
        "num_flare_circles_range": ("num_flare_circles_lower", "num_flare_circles_upper"),
    }
