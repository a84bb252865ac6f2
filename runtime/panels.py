"""Pictures as data: what traces hand to one another and `visualizers/panels.py` draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.errors import UsageError


@dataclass
class Panel:
    """One column of a grid, a row a sample; at least one of images, text, masks, boxes and keypoints.

    images (n, H, W, 1 or 3) or (n, H, W): uint8, or floats in [0, 1] or [-1, 1], whichever holds them (others are
    stretched). text: n strings or numbers. masks (n, H, W, K) or (n, H, W), drawn over the image; threshold makes them
    0 or 1. boxes: for each sample (b, 4 or 5), x, y, width, height in pixels and a label. keypoints (n, P, 2): x, y in
    pixels. heat (n, H, W) in [0, 1]: a map blended over the image in colours.
    """

    title: str = ""
    images: np.ndarray | None = None
    text: Sequence[Any] | None = None
    masks: np.ndarray | None = None
    boxes: Sequence[Any] | None = None
    keypoints: np.ndarray | None = None
    heat: np.ndarray | None = None
    mask_labels: Sequence[str] | None = None
    keypoint_labels: Sequence[str] | None = None
    threshold: float | None = None
    colours: tuple[str, str] = ("gray", "turbo")  # of images with one channel, of masks and heat

    def __len__(self) -> int:
        lengths = {len(part) for part in self.parts().values()}
        if len(lengths) != 1:
            has = {name: len(part) for name, part in self.parts().items()} or "nothing to show"
            raise UsageError(f"a panel needs parts of one number of samples, {self.title!r} has {has}.")
        return lengths.pop()

    def parts(self) -> dict[str, Any]:
        """What is there, by name."""
        names = ("images", "text", "masks", "boxes", "keypoints", "heat")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass
class Chart:
    """Lines over steps: label -> (steps, values), or (steps, values, low, high) with a band around the values."""

    title: str = ""
    series: Mapping[str, tuple[Sequence[float], ...]] = field(default_factory=dict)
