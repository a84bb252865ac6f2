"""Colours of an image moved towards another one's."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dataloaders.ops.each import DrawnOp
from dataloaders.ops.numpy_op import Names
from runtime.errors import UsageError


class PixelDistributionAdaptation(DrawnOp):
    """Gives the pixels of an image (H, W, C), uint8 or float, the distribution of a random reference's, blended.

    transform_type: "standard" matches each channel's mean and standard deviation, "minmax" its range, "pca" the mean
    and the principal axes, each turned to the side of the image's own. blend_ratio: range of the reference's share.
    reference_images: arrays (h, w, C) of the images' type, or what `read_fn` makes arrays of. albumentations 2.0.8 has
    one too, but makes uint8 images black.
    """

    def __init__(self, inputs: Names, outputs: Names, reference_images: Sequence[Any], mode: Names = None,
                 ds_id: Names = None, blend_ratio: tuple[float, float] = (0.25, 1.0),
                 read_fn: Callable[[Any], np.ndarray] = np.asarray, transform_type: str = "pca"):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        if transform_type not in ADAPTED:
            known = ", ".join(ADAPTED)
            raise UsageError(
                f"PixelDistributionAdaptation: transform_type must be one of {known}, got {transform_type!r}."
            )
        self.references = [np.asarray(read_fn(image)) for image in reference_images]
        self.blend_ratio, self.transform_type = blend_ratio, transform_type

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, float]:
        """The reference and its share."""
        return self.references[rng.integers(len(self.references))], rng.uniform(*self.blend_ratio)

    def changed(self, value: Any, drawn: tuple[np.ndarray, float]) -> np.ndarray:
        """The adapted image, kept in 0..255 or 0..1."""
        image, (reference, share) = np.asarray(value), drawn
        if reference.dtype != image.dtype or reference.shape[2:] != image.shape[2:]:
            raise UsageError(
                f"PixelDistributionAdaptation needs references like its images, got {reference.dtype} "
                f"{reference.shape} and {image.dtype} {image.shape}."
            )
        channels = 1 if image.ndim == 2 else image.shape[2]
        x, r = (a.reshape(-1, channels).astype(np.float64) for a in (image, reference))
        mixed = (1 - share) * x + share * ADAPTED[self.transform_type](x, r)
        whole = np.issubdtype(image.dtype, np.integer)
        mixed = np.clip(np.rint(mixed) if whole else mixed, 0, 255 if whole else 1)
        return mixed.reshape(image.shape).astype(image.dtype)


def standard(x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """x (N, C) with the means and standard deviations of r (M, C)."""
    spread = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1) * r.std(axis=0) + r.mean(axis=0)


def minmax(x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """x (N, C) with the ranges of r (M, C)."""
    width = np.ptp(x, axis=0)
    return (x - x.min(axis=0)) / np.where(width > 0, width, 1) * np.ptp(r, axis=0) + r.min(axis=0)


def pca(x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """x (N, C) about the mean of r (M, C), its principal axes turned into r's."""
    own, other = (np.linalg.eigh(np.atleast_2d(np.cov(a, rowvar=False)))[1] for a in (x, r))
    other = other * np.where((own * other).sum(axis=0) < 0, -1, 1)
    return (x - x.mean(axis=0)) @ own @ other.T + r.mean(axis=0)


ADAPTED = {"pca": pca, "standard": standard, "minmax": minmax}
