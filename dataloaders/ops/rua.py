"""RUA: a number and a strength of random augmentations that one level sets."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dataloaders.ops.meta import Data, MetaOp, set_level
from dataloaders.ops.numpy_op import FilteredData, Names, NumpyOp
from dataloaders.ops.pillow import (
    AutoContrast,
    Brightness,
    Color,
    Contrast,
    Limit,
    PillowOp,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
)
from dataloaders.samples import applied
from runtime.errors import UsageError
from runtime.op import as_tuple

HIGHEST, MOST = 30, 5  # level; augmentations of one image


class Rotate(PillowOp):
    """Rotates by a random angle, counter-clockwise in degrees, about the centre; black comes in."""

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None, limit: Limit = 30):
        super().__init__(inputs, outputs, mode, ds_id, limit)

    def change(self, image: Any, drawn: float) -> Any:
        """The rotated image, nearest neighbours."""
        return image.rotate(drawn)


class Identity(NumpyOp):
    """Leaves the image as it is."""

    def set_rua_level(self, magnitude_coef: float) -> None:
        """Nothing: there is no strength."""


class Equalize(PillowOp):
    """Equalises the histogram of each channel, as Pillow does it."""

    def change(self, image: Any, drawn: float) -> Any:
        """The equalised image."""
        from PIL import ImageOps

        return ImageOps.equalize(image)


class Posterize(PillowOp):
    """Keeps the highest bits of each channel: num_bits or, for a range, a draw from it; three of either: R, G, B.

    RUA's level m makes a number n the range (8 - m n, 8) and shrinks a range about its middle, both rounded.
    """

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None,
                 num_bits: int | Sequence[Any] = 7):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.given = list(num_bits) if isinstance(num_bits, Sequence) and len(num_bits) == 3 else [num_bits]
        self.ranges = [(n, n) if isinstance(n, int) else (n[0], n[1]) for n in self.given]
        if any(not 0 <= low <= high <= 8 for low, high in self.ranges):
            raise UsageError(f"Posterize needs num_bits in 0..8, got {num_bits}.")

    def set_rua_level(self, magnitude_coef: float) -> None:
        """Fewer bits the higher the level."""
        ranges = []
        for bits in self.given:
            if isinstance(bits, int):
                ranges.append((round(8 - magnitude_coef * bits), 8))
            else:
                middle, half = (bits[0] + bits[1]) / 2, magnitude_coef * (bits[1] - bits[0]) / 2
                ranges.append((round(middle - half), round(middle + half)))
        self.ranges = ranges

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """What is kept of a byte, for all channels or for each."""
        bits = np.array([rng.integers(low, high + 1) for low, high in self.ranges])
        return (256 - 2 ** (8 - bits)).astype(np.uint8)

    def change(self, image: Any, drawn: np.ndarray) -> np.ndarray:
        """The image with fewer values."""
        return np.asarray(image) & drawn


class Solarize(PillowOp):
    """Inverts values from 256 - t on, with t drawn from `threshold`, a range or a number for (0, number)."""

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None,
                 threshold: Limit = 256):  # fmt: skip
        super().__init__(
            inputs, outputs, mode, ds_id, (0, threshold) if isinstance(threshold, int | float) else threshold
        )

    def set_rua_level(self, magnitude_coef: float) -> None:
        """t is at most a share of the range, from its lower end."""
        low, high = self.full
        self.limit = (0, low + magnitude_coef * (high - low))

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> int:
        """The first value that is inverted."""
        return 256 - round(rng.uniform(*self.limit))

    def change(self, image: Any, drawn: int) -> np.ndarray:
        """The solarised image."""
        x = np.asarray(image)
        return np.where(x < drawn, x, 255 - x)


DEFAULTS: dict[str, tuple[type[NumpyOp], dict[str, Any]]] = {
    "Rotate": (Rotate, {"limit": 90}),
    "Identity": (Identity, {}),
    "AutoContrast": (AutoContrast, {}),
    "Equalize": (Equalize, {}),
    "Posterize": (Posterize, {"num_bits": 7}),
    "Solarize": (Solarize, {"threshold": 256}),
    **{kind.__name__: (kind, {"limit": 0.9}) for kind in (Sharpness, Contrast, Color, Brightness)},
    **{kind.__name__: (kind, {"shear_coef": 0.5}) for kind in (ShearX, ShearY)},
    **{kind.__name__: (kind, {"shift_limit": 0.33}) for kind in (TranslateX, TranslateY)},
}


class RUA(MetaOp):
    """Random augmentations of images (H, W, C) uint8 from a pool; one level 0..30 says how many and how strong.

    At level l there are 1 + l (n - 1) / 30 of them, n the size of the pool but at most 5 (a fraction is the probability
    of one more), each at the strength l / 30: FastEstimator's RandAugment (arXiv 1909.13719) with one parameter.
    choices: "defaults" (DEFAULTS), names of it, names with "!" for all but those, and ops of your own with a method
    `set_rua_level(magnitude_coef)`, whose outputs must exist in the data.
    """

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None,
                 choices: str | NumpyOp | Sequence[str | NumpyOp] = "defaults", level: float = 18):  # fmt: skip
        if not 0 <= level <= HIGHEST:
            raise UsageError(f"RUA: level must lie in 0..{HIGHEST}, got {level}.")
        self.read, self.written = as_tuple(inputs), as_tuple(outputs)
        if len(self.read) != len(self.written):
            raise UsageError(f"RUA needs as many outputs as inputs, got {self.read} and {self.written}.")
        chosen = [choices] if isinstance(choices, str | NumpyOp) else list(choices)
        names = pool([choice for choice in chosen if isinstance(choice, str)])
        more = [choice for choice in chosen if not isinstance(choice, str)]
        ready = [DEFAULTS[name][0](outputs, outputs, mode, ds_id, **DEFAULTS[name][1]) for name in names]
        super().__init__([*ready, *more])
        for op in self.ops:
            set_level(op, level / HIGHEST)
        self.outputs = tuple(dict.fromkeys([*self.written, *(name for op in more for name in op.outputs)]))
        needed = [name for op in more for name in (*op.inputs, *op.outputs) if name not in self.written]
        self.inputs = tuple(dict.fromkeys([*self.read, *needed]))
        self.count = 1 + level * (min(len(self.ops), MOST) - 1) / HIGHEST

    def run(self, data: Data, state: Any, batched: bool) -> Data | FilteredData:
        """The data after so many drawn ops."""
        data |= {new: data[old] for old, new in zip(self.read, self.written, strict=True)}
        rng = state["rng"]
        for _ in range(int(self.count) + (rng.random() < self.count % 1)):
            removed = applied(self.ops[rng.integers(len(self.ops))], data, state, batched)
            if removed is not None:
                return removed
        return data

    def forward_batch(self, data: Any, state: Any) -> Any:
        """The same, with draws of its own for every sample."""
        rows = [self.named(self.forward([column[i] for column in data], state)) for i in range(len(data[0]))]
        return {name: np.stack([row[name] for row in rows]) for name in self.outputs}


def pool(choices: Sequence[str]) -> list[str]:
    """The names of DEFAULTS that choices stand for; UsageError for unknown names and for mixtures."""
    bare = [name.removeprefix("!") for name in choices if name != "defaults"]
    if unknown := [name for name in bare if name not in DEFAULTS]:
        raise UsageError(f"RUA has no augmentation {', '.join(unknown)}; it has {', '.join(DEFAULTS)}.")
    without = [name for name in choices if name.startswith("!")]
    if bare and ("defaults" in choices or len(without) not in (0, len(bare))):
        raise UsageError(
            f'RUA\'s choices are "defaults", names, or names with "!", not a mixture; got {list(choices)}.'
        )
    if without or "defaults" in choices:
        return [name for name in DEFAULTS if name not in bare]
    return bare
